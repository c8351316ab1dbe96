"""Watch the refusal share of each model, tenant and provider, and raise an alert for a spike.

All workers watch, one at a time. The counts and the current spikes are in storage, and a worker whose read
spikes are outdated writes nothing. So each spike begins once and ends once, even if workers die.
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
    from collections.abc import Callable, Mapping, Sequence

    from service.settings import Settings

_NOTHING = Count()
_WATCHED = frozenset(get_args(KnownRateScope))


class Subject(NamedTuple):
    """A model, tenant or provider with its own counts."""

    scope: RateScope
    name: str

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Parse the output of `str()`."""
        scope, _, name = text.partition(":")
        return cls(scope, name)


@dataclass(frozen=True, slots=True)
class Rates:
    """The counts up to a time; all times are in milliseconds since the epoch."""

    now_ms: int
    window_since_ms: int
    baseline_since_ms: int
    window: Mapping[Subject, Count]
    baseline: Mapping[Subject, Count]
    """The counts of the time before the window."""

    @property
    def subjects(self) -> list[Subject]:
        """The subjects with counts, sorted."""
        return sorted({*self.window, *self.baseline})

    def rate(self, subject: Subject, *, since_spike: RefusalRate | None = None) -> RefusalRate:
        """Return the window and baseline of a subject; during a spike, with the baseline of `since_spike`."""
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
class LeaderLock:
    """The right to look for spikes, and the spikes at that time."""

    now_ms: int
    """The server's time in milliseconds since the epoch."""
    version: int
    """The version of `spikes`; once it has changed, this turn cannot write any more."""
    spikes: Mapping[Subject, ModerationAlert]
    """The current spikes, with the alerts that began them."""


@dataclass(frozen=True, slots=True)
class Change:
    """The beginning or the end of a spike."""

    subject: Subject
    alert: ModerationAlert
    begins: bool


class RateStorage(Protocol):
    """The storage of counts and spikes. Any method may raise `StorageUnavailableError`."""

    async def acquire_leader_lock(self, lasts_ms: int) -> LeaderLock | None:
        """Acquire the right to look for `lasts_ms`; None if another worker holds it."""
        ...

    async def counted(self, now_ms: int) -> Rates:
        """Return the counts of all partitions up to now."""
        ...

    async def write(self, lock: LeaderLock, changes: Sequence[Change]) -> bool:
        """Raise the alerts and store the changes; return whether it was done.

        Write nothing if another worker has written since this turn, or the turn is too old.
        """
        ...


def changes(lock: LeaderLock, rates: Rates, thresholds: Thresholds) -> list[Change]:
    """Return the spikes that begin, and those that end.

    A spike is compared with the baseline from before it began. It ends at the latest when a new baseline
    would begin after it: a share that has lasted for a day (by default) is normal. Spikes with an unknown
    scope, which a later version has added, are left alone.
    """
    found = []
    for subject, began in lock.spikes.items():
        if subject.scope not in _WATCHED:
            continue
        rate = rates.rate(subject, since_spike=began.rate)
        outlasted = began.rate is not None and began.rate.until <= _time(rates.baseline_since_ms)
        if outlasted or is_calm(window_of(rate), baseline_of(rate), thresholds):
            found.append(Change(subject, _alert(subject, rate, began), begins=False))
    for subject, window in sorted(rates.window.items()):
        if subject.scope not in _WATCHED:
            continue
        known = subject in lock.spikes or subject.name == OTHER  # its members change, so it is never a spike
        if not known and is_spike(window, rates.baseline.get(subject, _NOTHING), thresholds):
            found.append(Change(subject, _alert(subject, rates.rate(subject)), begins=True))
    return found


def thresholds_of(settings: Settings) -> Thresholds:
    """Return the configured thresholds."""
    return Thresholds(settings.spike_responses, settings.spike_ratio, settings.spike_score)


class SpikeWatch:
    """Looks for spikes.

    Args:
        storage: storage of the counts and spikes.
        thresholds: thresholds of a spike.
        every: seconds between two looks of this worker.
        raised: called with the alerts that were raised.
    """

    def __init__(
        self,
        storage: RateStorage,
        thresholds: Thresholds,
        every: float,
        raised: Callable[[Sequence[ModerationAlert]], None] = lambda _: None,
    ) -> None:
        self._raised = raised
        self._storage = storage
        self._thresholds = thresholds
        # Half the interval, so that a single worker gets each turn in spite of jitter.
        self._turn_ms = round(every * 500)

    async def look(self) -> None:
        """Raise an alert for each spike that begins or ends, if no other worker holds the right to look."""
        lock = await self._storage.acquire_leader_lock(self._turn_ms)
        if lock is None:
            return
        rates = await self._storage.counted(lock.now_ms)
        # With tens of thousands of names this would block the event loop.
        found = await asyncio.to_thread(changes, lock, rates, self._thresholds)
        if found and await self._storage.write(lock, found):
            self._raised([change.alert for change in found])
            for change in found:
                _log(change)


def window_of(rate: RefusalRate) -> Count:
    """Return the count of the window."""
    return Count(rate.responses, rate.refused, rate.blocked)


def baseline_of(rate: RefusalRate) -> Count:
    """Return the count of the baseline."""
    return Count(rate.baseline_responses, rate.baseline_refused, rate.baseline_blocked)


def _alert(subject: Subject, rate: RefusalRate, began: ModerationAlert | None = None) -> ModerationAlert:
    """Return the alert that a spike begins, or, if `began` is its first alert, that it has ended."""
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
    log, alert, scope = logs.logger(), change.alert.id, str(change.subject)
    if change.begins:
        log.warning(
            "refusal spike", alert=alert, scope=scope, refused=refused, before=before, score=rate.score
        )
    else:
        log.info(
            "refusal spike ended", alert=alert, scope=scope, refused=refused, before=before, score=rate.score
        )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
