"""The port through which a worker counts its work, and the instruments that count nothing.

Counts come from the replies of the scripts, so they are those of the entries, texts and alerts that this
process has really acknowledged, written and raised. `service/observability/metrics/` implements the port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deltaloom.messages import AssembledText, ModerationAlert
    from service.ports.deployment_figures import BacklogFigures


class CommittedWork(NamedTuple):
    """The effects of a committed batch that are counted."""

    acknowledged: int
    """Number of entries that were acknowledged."""
    events: Mapping[str, int]
    """Number of events in the acknowledged entries, by type. Unreadable events are not counted."""
    late: int
    """Number of deltas for texts that were finished before."""
    lost_events: int
    """Number of events that producers report to have dropped."""
    ignored_fields: int
    """Number of odd fields that were left out of events."""
    letters: Sequence[str]
    """The reasons of the dead letters."""
    alerts: Sequence[ModerationAlert]
    """The alerts that were raised."""


class Instruments(Protocol):
    """Counts the work of a worker. No method raises an error or waits."""

    @property
    def on(self) -> bool:
        """True if anything is counted, so that a caller need not collect what nobody counts."""
        ...

    def batch_begins(self, entries: int, read: int) -> None:
        """Record that a batch is now in hand; `read` of its `entries` were read for the first time."""
        ...

    def batch_ends(self) -> None:
        """Record that a batch is no longer in hand."""
        ...

    def commit_took(self, seconds: float) -> None:
        """Record the duration of a call that stored a batch, or a piece of one."""
        ...

    def committed(self, work: CommittedWork, now_ms: int) -> None:
        """Count the effects of a batch; `now_ms` is the server's time in ms since the epoch."""
        ...

    def settled(
        self,
        seconds: float,
        texts: Sequence[AssembledText],
        alerts: Sequence[ModerationAlert],
        late: int,
        now_ms: int,
    ) -> None:
        """Count the texts and alerts of one call of settle.lua, and the late deltas that it found.

        Args:
            seconds: duration of the call.
            texts: the texts that it has written.
            alerts: the alerts that it has raised.
            late: number of deltas that came after the end of their text.
            now_ms: the server's time in ms since the epoch.
        """
        ...

    def raised(self, alerts: Sequence[ModerationAlert]) -> None:
        """Count alerts that are about no single response: spikes."""
        ...

    def claimed(self, entries: int) -> None:
        """Count entries that were taken over from another worker or an earlier process."""
        ...

    def lost(self, entries: int) -> None:
        """Count entries that were trimmed from the input before they were processed."""
        ...


class _Off:
    """Instruments that count nothing."""

    on = False

    def batch_begins(self, entries: int, read: int) -> None:
        """Do nothing."""

    def batch_ends(self) -> None:
        """Do nothing."""

    def commit_took(self, seconds: float) -> None:
        """Do nothing."""

    def committed(self, work: CommittedWork, now_ms: int) -> None:
        """Do nothing."""

    def settled(
        self,
        seconds: float,
        texts: Sequence[AssembledText],
        alerts: Sequence[ModerationAlert],
        late: int,
        now_ms: int,
    ) -> None:
        """Do nothing."""

    def raised(self, alerts: Sequence[ModerationAlert]) -> None:
        """Do nothing."""

    def claimed(self, entries: int) -> None:
        """Do nothing."""

    def lost(self, entries: int) -> None:
        """Do nothing."""


OFF: Instruments = _Off()
"""Instruments that count nothing."""


class Availability(Protocol):
    """The availability of Redis, as one part of a program finds it."""

    @property
    def is_away(self) -> bool:
        """True while Redis is unavailable."""
        ...

    @property
    def away_seconds(self) -> float:
        """Total seconds for which Redis was unavailable."""
        ...

    @property
    def needs_operator(self) -> Sequence[str]:
        """States for which a step waits until an operator acts; empty if none does."""
        ...


class RelayInstruments(Protocol):
    """Counts the deliveries of a relay. No method raises an error or waits."""

    @property
    def on(self) -> bool:
        """True if anything is counted, so that a caller need not measure what nobody asks for."""
        ...

    def ended(self, destination: str, outcome: str) -> None:
        """Count an attempt to deliver a message, or a message that was given up, by its outcome."""
        ...

    def measured(self, destination: str, backlog: BacklogFigures, *, paused: bool) -> None:
        """Record the backlog of a destination; `paused` is True if nothing is sent to it for now."""
        ...

    def left(self, destination: str) -> None:
        """Forget the backlog of a destination, because another relay sends to it now."""
        ...

    def watch(self, retrier: Availability) -> None:
        """Report Redis as unavailable, from now on, whenever `retrier.is_away` is True."""
        ...


class _RelayOff:
    """Instruments that count nothing."""

    on = False

    def ended(self, destination: str, outcome: str) -> None:
        """Do nothing."""

    def measured(self, destination: str, backlog: BacklogFigures, *, paused: bool) -> None:
        """Do nothing."""

    def left(self, destination: str) -> None:
        """Do nothing."""

    def watch(self, retrier: Availability) -> None:
        """Do nothing."""


RELAY_OFF: RelayInstruments = _RelayOff()
"""Instruments of a relay that count nothing."""
