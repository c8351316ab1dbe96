"""The instruments of a worker: plain numbers, which cost little to count."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, get_args

from deltaloom import events
from deltaloom.kinds import KINDS
from deltaloom.messages import (
    KnownAlertSeverity,
    KnownAlertType,
    KnownDeadLetterReason,
    KnownIntegrity,
    KnownStatus,
)
from service.observability.metrics import catalog
from service.observability.metrics.headroom import Headroom
from service.observability.metrics.leader import Leader
from service.observability.metrics.process_samples import of_redis_user
from service.observability.metrics.samples import Exemplar, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from deltaloom.messages import AssembledText, ModerationAlert
    from service.observability.metrics.leader import FigureStore
    from service.observability.metrics.samples import Samples
    from service.ports.instruments import Availability, CommittedWork
    from service.ports.outbox import LeaseStore

_STATUSES = frozenset(get_args(KnownStatus))
_INTEGRITIES = frozenset(get_args(KnownIntegrity))
_SEVERITIES = frozenset(get_args(KnownAlertSeverity))
_ALERT_TYPES = frozenset(get_args(KnownAlertType))
_REASONS = get_args(KnownDeadLetterReason)
_ABANDONED = "abandoned"

_TRACE_ID = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class WorkerInstruments:
    """The implementation of `service.ports.instruments.Instruments` that counts."""

    on = True

    def __init__(self) -> None:
        self._event_types = {*_known_event_types()}
        self._kinds = {*KINDS}
        self._leader: Leader | None = None
        self._retriers: list[Availability] = []
        self._headroom = Headroom()
        self._last_commit = 0.0
        self._read = self._acknowledged = self._claimed = self._lost = self._late = self._ignored = 0
        self._producer_lost = 0
        self._events: Counter[str] = Counter()
        self._texts: Counter[tuple[str, ...]] = Counter()
        # Zeros, so that `increase` sees the first alert too.
        self._alerts: Counter[tuple[str, ...]] = Counter(
            {(alert_type, severity): 0 for alert_type in _ALERT_TYPES for severity in _SEVERITIES}
        )
        self._letters: Counter[str] = Counter(dict.fromkeys(_REASONS, 0))
        self._batch_entries = Histogram(catalog.BATCH_ENTRIES)
        self._commit_seconds = Histogram(catalog.COMMIT_SECONDS)
        self._settle_seconds = Histogram(catalog.SETTLE_SECONDS)
        self._to_text = {kind: Histogram(catalog.INPUT_TO_TEXT) for kind in KINDS}
        self._to_alert = Histogram(catalog.INPUT_TO_ALERT)
        # These are called with each batch: without a call in between, which would cost as much as they do.
        self.batch_ends: Callable[[], None] = self._headroom.end
        self.commit_took: Callable[[float], None] = self._commit_seconds.observe

    def know(self, event_types: Iterable[str], kinds: Iterable[str]) -> None:
        """Count these event types and kinds of text, those of the enabled handlers, under their names."""
        self._event_types |= {*event_types}
        self._kinds |= {*kinds}

    def measure_group(self, figures: FigureStore, lease: LeaseStore) -> Leader:
        """Export the figures of the group too, while the leader that is returned measures them."""
        self._leader = Leader(figures, lease)
        return self._leader

    def watch(self, retriers: Iterable[Availability]) -> None:
        """Report Redis as unavailable while it is for one of these."""
        self._retriers += retriers

    def batch_begins(self, entries: int, read: int) -> None:
        """Count a batch that is now in hand."""
        self._read += read
        self._batch_entries.observe(entries)
        self._headroom.begin(entries)

    def committed(self, work: CommittedWork, now_ms: int) -> None:
        """Count the effects of a batch."""
        self._last_commit = now_ms / 1000
        self._acknowledged += work.acknowledged
        counted, known = self._events, self._event_types
        for event_type, number in work.events.items():
            counted[event_type if event_type in known else catalog.OTHER] += number
        self._late += work.late
        self._producer_lost += work.lost_events
        self._ignored += work.ignored_fields
        if work.letters:
            self._letters.update(_among(_REASONS, reason) for reason in work.letters)
        if work.alerts:
            self._count_alerts(work.alerts, now_ms)

    def settled(
        self,
        seconds: float,
        texts: Sequence[AssembledText],
        alerts: Sequence[ModerationAlert],
        late: int,
        now_ms: int,
    ) -> None:
        """Count the texts and alerts of one call of settle.lua."""
        self._settle_seconds.observe(seconds)
        self._late += late
        for text in texts:
            kind = text.kind if text.kind in self._kinds else catalog.OTHER
            status, integrity = _among(_STATUSES, text.status), _among(_INTEGRITIES, text.integrity)
            self._texts[kind, status, integrity] += 1
            if status != _ABANDONED:
                if kind not in self._to_text:
                    self._to_text[kind] = Histogram(catalog.INPUT_TO_TEXT)
                _observe(self._to_text[kind], text.finished_at.timestamp(), now_ms, text.traceparent)
        if alerts:
            self._count_alerts(alerts, now_ms)

    def raised(self, alerts: Sequence[ModerationAlert]) -> None:
        """Count alerts about spikes."""
        for alert in alerts:
            self._alerts[_among(_ALERT_TYPES, alert.type), _among(_SEVERITIES, alert.severity)] += 1

    def claimed(self, entries: int) -> None:
        """Count entries that were taken over."""
        self._claimed += entries

    def lost(self, entries: int) -> None:
        """Count entries that were trimmed before they were processed."""
        self._lost += entries

    def _count_alerts(self, alerts: Sequence[ModerationAlert], now_ms: int) -> None:
        self.raised(alerts)
        for alert in alerts:
            if alert.status != _ABANDONED:
                _observe(self._to_alert, alert.raised_at.timestamp(), now_ms, alert.traceparent)

    def samples(self) -> Samples:
        """Return the values of all metrics of a worker."""
        none = ()
        samples: Samples = {} if self._leader is None else self._leader.samples()
        return samples | {
            **of_redis_user(self._retriers),
            catalog.LAST_COMMIT.name: {none: self._last_commit},
            catalog.BUSY_RATIO.name: {none: self._headroom.ratio()},
            catalog.ENTRIES_READ.name: {none: self._read},
            catalog.ENTRIES_ACKNOWLEDGED.name: {none: self._acknowledged},
            catalog.ENTRIES_CLAIMED.name: {none: self._claimed},
            catalog.ENTRIES_LOST.name: {none: self._lost},
            catalog.EVENTS.name: {(event_type,): n for event_type, n in self._events.items()},
            catalog.TEXTS.name: {**self._texts},
            catalog.ALERTS.name: {**self._alerts},
            catalog.LETTERS.name: {(reason,): n for reason, n in self._letters.items()},
            catalog.LATE_EVENTS.name: {none: self._late},
            catalog.PRODUCER_LOST.name: {none: self._producer_lost},
            catalog.IGNORED_FIELDS.name: {none: self._ignored},
            catalog.INPUT_TO_TEXT.name: {
                (kind,): each.distribution() for kind, each in self._to_text.items()
            },
            catalog.INPUT_TO_ALERT.name: {none: self._to_alert.distribution()},
            catalog.COMMIT_SECONDS.name: {none: self._commit_seconds.distribution()},
            catalog.SETTLE_SECONDS.name: {none: self._settle_seconds.distribution()},
            catalog.BATCH_ENTRIES.name: {none: self._batch_entries.distribution()},
        }


def _among(known: Collection[str], name: str) -> str:
    return name if name in known else catalog.OTHER


def _observe(histogram: Histogram, since: float, now_ms: int, traceparent: str | None) -> None:
    """Add the seconds since a time; if the trace is known, as an exemplar."""
    seconds = max(0.0, now_ms / 1000 - since)
    if traceparent is not None and (found := _TRACE_ID.fullmatch(traceparent)):
        histogram.observe_traced(Exemplar(found[1], seconds, now_ms / 1000))
    else:
        histogram.observe(seconds)


@cache
def _known_event_types() -> frozenset[str]:
    """Return the event types that the library knows."""
    found: set[str] = set()
    models: list[type[events.Event]] = [events.Event]
    while models:
        model = models.pop()
        models += model.__subclasses__()
        field = model.model_fields.get("type")
        found.update(get_args(field.annotation) if field is not None else ())
    return frozenset(found)
