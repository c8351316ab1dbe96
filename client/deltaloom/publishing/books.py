"""Count each event of a publisher once: published, merged, dropped with a reason, or waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

LossReason = Literal[
    "over_budget",
    "response_dropped",
    "closed",
    "unconfirmed",
    "refused",
    "too_large",
    "not_json",
    "invalid",
    "unnumbered",
    "repeated",
    "after_end",
]
"""Reason why an event was dropped."""

NAMED_LOSSES: Final = 1_024
"""Maximum responses that the loss report names. Losses of others are counted together."""


@dataclass(frozen=True, slots=True)
class PublisherCounters:
    """The counts of a publisher in this process, at one moment.

    `seen == published + merged + sum(dropped.values()) + waiting`, always.
    """

    seen: int
    """Events offered."""
    published: int
    """Events that the server has confirmed."""
    merged: int
    """Deltas whose text was published as part of another delta."""
    dropped: Mapping[str, int]
    """Events that were dropped, by reason."""
    waiting: int
    """Events that are neither confirmed nor dropped yet."""
    waiting_bytes: int
    """Estimated bytes of memory of the waiting events."""
    reduced: int
    """Closings that were published with a checksum in place of a text, or without their final copy."""
    entries: int
    """Stream entries that the server has confirmed."""
    failures: Mapping[str, int]
    """Failed attempts to send, by the name of the error's class."""
    reports: int
    """Loss reports that the server has confirmed."""

    def prometheus(self) -> str:
        """Return the counts in Prometheus' text format."""
        outcomes = [("published", "", self.published), ("merged", "", self.merged)]
        outcomes += [("dropped", reason, count) for reason, count in sorted(self.dropped.items())]
        lines = [
            *_head("events_total", "counter", "Events by their end."),
            *(
                f'deltaloom_publisher_events_total{{outcome="{outcome}",reason="{reason}"}} {count}'
                for outcome, reason, count in outcomes
            ),
            *_single("seen_total", "counter", "Events offered.", self.seen),
            *_single("reduced_total", "counter", "Closings without their text.", self.reduced),
            *_single("entries_total", "counter", "Stream entries added.", self.entries),
            *_single("loss_reports_total", "counter", "Loss reports added.", self.reports),
            *_single("waiting_events", "gauge", "Events that wait.", self.waiting),
            *_single("waiting_bytes", "gauge", "Bytes of the events that wait.", self.waiting_bytes),
            *_head("failures_total", "counter", "Failed attempts to send."),
            *(
                f'deltaloom_publisher_failures_total{{error="{name}"}} {count}'
                for name, count in sorted(self.failures.items())
            ),
        ]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP deltaloom_publisher_{name} {about}", f"# TYPE deltaloom_publisher_{name} {kind}"]


def _single(name: str, kind: str, about: str, value: int) -> list[str]:
    return [*_head(name, kind, about), f"deltaloom_publisher_{name} {value}"]


class LossReport(NamedTuple):
    """Losses since the last call of `on_loss`."""

    dropped: Mapping[str, int]
    """Events that were dropped, by reason."""
    responses: Mapping[str, int]
    """Events that were dropped, by response id; at most 1,024 ids."""


class Books:
    """The counts of a publisher, and the losses that are still to be reported.

    Not thread-safe: the publisher's lock guards it.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.published = 0
        self.merged = 0
        self.dropped: dict[str, int] = {}
        self.reduced = 0
        self.entries = 0
        self.failures: dict[str, int] = {}
        self.reports = 0
        self.lost: dict[str, int] = {}
        """Numbers of dropped events that are not reported on the stream yet, by response id."""
        self.unnamed = 0
        """Number of dropped events of responses that cannot be named."""
        self._new_reasons: dict[str, int] = {}
        self._new_responses: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """The events that are neither confirmed nor dropped."""
        return self.seen - self.published - self.merged - sum(self.dropped.values())

    def drop(self, reason: LossReason, response_id: str, count: int = 1, *, is_loss: bool = True) -> None:
        """Count dropped events, and note them for the loss report of their response.

        Args:
            reason: reason for the loss.
            response_id: the response of the events.
            count: number of events.
            is_loss: False for events that could not have changed a text.
        """
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        self._new_reasons[reason] = self._new_reasons.get(reason, 0) + count
        _add(self._new_responses, response_id, count)
        if is_loss:
            self.lose(response_id, count)

    def lose(self, response_id: str, count: int) -> None:
        """Note a loss for the report of a response."""
        if not _add(self.lost, response_id, count):
            self.unnamed += count

    def fail(self, error: str) -> None:
        """Count a failed attempt."""
        self.failures[error] = self.failures.get(error, 0) + 1

    def new_losses(self) -> LossReport | None:
        """Return the losses since the last call; None if there are none."""
        if not self._new_reasons:
            return None
        report = LossReport(self._new_reasons, self._new_responses)
        self._new_reasons, self._new_responses = {}, {}
        return report

    def snapshot(self, waiting_bytes: int) -> PublisherCounters:
        """Return a copy of the counts, and the bytes of memory of the waiting events."""
        return PublisherCounters(
            seen=self.seen,
            published=self.published,
            merged=self.merged,
            dropped=dict(self.dropped),
            waiting=self.waiting,
            waiting_bytes=waiting_bytes,
            reduced=self.reduced,
            entries=self.entries,
            failures=dict(self.failures),
            reports=self.reports,
        )


def _add(counts: dict[str, int], name: str, count: int) -> bool:
    """Add to a bounded table of counts; return False if the name has no place."""
    if name not in counts and len(counts) >= NAMED_LOSSES:
        return False
    counts[name] = counts.get(name, 0) + count
    return True
