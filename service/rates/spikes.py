"""Watch the refusals of each model, tenant and provider, and alert when they are far more than before.

Every worker watches, one at a time. What is counted, and which spikes last, is in storage, and a look that
another one has overtaken writes nothing. So each spike begins once and ends once, whichever workers die.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol, get_args

from deltaloom.messages import KnownRateScope, ModerationAlert, RateScope, RefusalRate
from handlers.core.identity import digest
from service import logs
from service.keys import OTHER
from service.rates.proportions import Count, Thresholds, is_calm, is_spike, score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.settings import Settings

_NOTHING = Count()
_WATCHED = frozenset(get_args(KnownRateScope))


class Subject(NamedTuple):
    """Whose responses are counted together."""

    scope: RateScope
    name: str

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Read back what `str()` wrote."""
        scope, _, name = text.partition(":")
        return cls(scope, name)


@dataclass(frozen=True, slots=True)
class Rates:
    """What was counted, up to a time; all of it in milliseconds since the epoch."""

    now_ms: int
    window_since_ms: int
    baseline_since_ms: int
    window: Mapping[Subject, Count]
    baseline: Mapping[Subject, Count]
    """Of the time before the window."""

    @property
    def subjects(self) -> list[Subject]:
        """All of whom something was counted, by name."""
        return sorted({*self.window, *self.baseline})

    def rate(self, subject: Subject, *, since_spike: RefusalRate | None = None) -> RefusalRate:
        """Window and baseline of one; the baseline of `since_spike`, if one lasts."""
        window = self.window.get(subject, _NOTHING)
        baseline, baseline_since = self.baseline.get(subject, _NOTHING), _time(self.baseline_since_ms)
        if since_spike is not None:
            baseline = baseline_of(since_spike)
            baseline_since = since_spike.baseline_since
        return RefusalRate(
            by=subject.scope,
            name=subject.name,
            since=_time(self.window_since_ms),
            until=_time(self.now_ms),
            responses=window.responses,
            refused=window.refused,
            baseline_since=baseline_since,
            baseline_responses=baseline.responses,
            baseline_refused=baseline.refused,
            blocked=window.blocked,
            baseline_blocked=baseline.blocked,
            score=round(score(window, baseline), 2),
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to look, for now."""

    now_ms: int
    """Server time."""
    version: int
    """Of the spikes below: when they are another's, what was seen is out of date."""
    spikes: Mapping[Subject, ModerationAlert]
    """Those that last, as the alerts that began them."""


@dataclass(frozen=True, slots=True)
class Change:
    """A spike that begins, or ends."""

    subject: Subject
    alert: ModerationAlert
    begins: bool


class RateStorage(Protocol):
    """Where responses are counted. Every method may raise `StorageUnavailableError`."""

    async def take_turn(self, lasts_ms: int) -> Turn | None:
        """The turn to look, for so long; None if another worker has it."""
        ...

    async def counted(self, now_ms: int) -> Rates:
        """What was counted up to now, in all partitions."""
        ...

    async def write(self, turn: Turn, changes: Sequence[Change]) -> bool:
        """Raise the alerts, unless another worker has written since this turn, or it is long past."""
        ...


def changes(turn: Turn, rates: Rates, thresholds: Thresholds) -> list[Change]:
    """The spikes that begin, and those that end.

    A spike is compared with what was before it. It is over at the latest when that is longer ago than any
    baseline reaches: what has been so for a day is how things are. Only a later version changes spikes of the
    scopes that it added.
    """
    found = []
    for subject, began in turn.spikes.items():
        if subject.scope not in _WATCHED:
            continue
        rate = rates.rate(subject, since_spike=began.rate)
        outlasted = began.rate is not None and began.rate.until <= _time(rates.baseline_since_ms)
        if outlasted or is_calm(window_of(rate), baseline_of(rate), thresholds):
            found.append(Change(subject, _alert(subject, rate, began), begins=False))
    for subject, window in sorted(rates.window.items()):
        if subject.scope not in _WATCHED:
            continue
        known = subject in turn.spikes or subject.name == OTHER  # these are always others, so never a spike
        if not known and is_spike(window, rates.baseline.get(subject, _NOTHING), thresholds):
            found.append(Change(subject, _alert(subject, rates.rate(subject)), begins=True))
    return found


def thresholds_of(settings: Settings) -> Thresholds:
    """As the operator wants them."""
    return Thresholds(settings.spike_responses, settings.spike_ratio, settings.spike_score)


class SpikeWatch:
    """Looks, again and again.

    Args:
        storage: where the responses are counted.
        thresholds: what makes a spike.
        every: seconds between two looks of this worker.
    """

    def __init__(self, storage: RateStorage, thresholds: Thresholds, every: float) -> None:
        self._storage = storage
        self._thresholds = thresholds
        self._turn_ms = round(
            every * 500
        )  # half of it: a worker that is alone gets each turn, however it jitters

    async def look(self) -> None:
        """Look, if it is this worker's turn, and raise an alert for each spike that begins or ends."""
        turn = await self._storage.take_turn(self._turn_ms)
        if turn is None:
            return
        rates = await self._storage.counted(turn.now_ms)
        found = await asyncio.to_thread(changes, turn, rates, self._thresholds)  # as in `counted`
        if found and await self._storage.write(turn, found):
            for change in found:
                _log(change)


def window_of(rate: RefusalRate) -> Count:
    """Return what was counted in the window."""
    return Count(rate.responses, rate.refused, rate.blocked)


def baseline_of(rate: RefusalRate) -> Count:
    """Return what was counted before it."""
    return Count(rate.baseline_responses, rate.baseline_refused, rate.baseline_blocked)


def _alert(subject: Subject, rate: RefusalRate, began: ModerationAlert | None = None) -> ModerationAlert:
    """That a spike begins, or that the one is over which `began`."""
    begins_id = digest("spike", f"{subject}\n{rate.until.isoformat()}")
    return ModerationAlert(
        type="deltaloom.refusal.spike" if began is None else "deltaloom.refusal.spike.ended",
        id=begins_id if began is None else began.id.replace("spike_", "spike_ended_", 1),
        severity="critical" if began is None else "info",
        text="",
        model=subject.name if subject.scope == "model" else None,
        tenant=subject.name if subject.scope == "tenant" else None,
        provider=subject.name if subject.scope == "provider" else None,
        rate=rate,
        raised_at=rate.until,
    )


def _log(change: Change) -> None:
    rate = change.alert.rate
    assert rate is not None  # noqa: S101 - both alerts have one
    refused = f"{rate.refused} of {rate.responses}"
    before = f"{rate.baseline_refused} of {rate.baseline_responses}"
    log, alert, whose = logs.logger(), change.alert.id, str(change.subject)
    if change.begins:
        log.warning(
            "refusal spike", alert=alert, whose=whose, refused=refused, before=before, score=rate.score
        )
    else:
        log.info(
            "refusal spike ended", alert=alert, whose=whose, refused=refused, before=before, score=rate.score
        )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
