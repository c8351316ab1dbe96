"""What settle.lua is called with: keys, and a plan in MessagePack that names them by number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from handlers.core.text import text_digest
from service.keys import OTHER
from service.ports.storage import FinishedText
from service.storage.buckets import NAME_LENGTH, NAMES_AT_MOST, baseline_of, window_of
from service.storage.records import arrival_field, entry_of, entry_of_alert, in_ms, stamped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaloom.messages import ModerationAlert
    from service.keys import Keys
    from service.ports.storage import Dropped, Over, Settlement
    from service.settings import Settings

OVER_MS = 600_000
"""Milliseconds for which it is remembered that a response without any text of ours is over.

Its end may be said again, by a producer's retry or by a second event, and counts once. Most responses are
such, so that they are not remembered for as long as texts are.
"""

_encode = msgspec.msgpack.Encoder().encode


class SettleCall:
    """One call of settle.lua."""

    def __init__(
        self, settlements: Sequence[Settlement], history: str, keys: Keys, settings: Settings
    ) -> None:
        """Plan it."""
        names = keys.names
        self._names = keys
        self._source = names.prefix
        self._series = (window_of(settings), baseline_of(settings)) if settings.spike_window else ()
        self._buckets: list[dict[str, int]] = []
        self._bucket_numbers: dict[str, int] = {}
        self.keys: list[str] = [names.assembled, names.alerts, keys.counts, keys.open, keys.waiting]
        plan = {
            "settlements": [self._settlement(settlement) for settlement in settlements],
            "marker_ttl_ms": in_ms(settings.remembered),
            "over_ttl_ms": min(OVER_MS, in_ms(settings.remembered)),
            "item_ttl_ms": in_ms(settings.item_ttl),
            "buckets": self._buckets,
            "history": history,
            "names_at_most": NAMES_AT_MOST,
            "other": OTHER,
        }
        self.args = [_encode(plan)]

    def _key(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys)

    def _settlement(self, settlement: Settlement) -> dict[str, Any]:
        doubtful = settlement.doubtful_since
        plan: dict[str, Any] = {
            "state": self._key(self._names.state(settlement.stream_key)),
            "marker": self._key(self._names.marker(settlement.stream_key)),
            "member": str(settlement.stream_key),
            "version": settlement.version,
            "spent": [arrival_field(arrival) for arrival in settlement.spent],
            "ended": settlement.ended,
            "partial": settlement.partial,
            "earlier": [part.field for part in settlement.earlier],
            "texts": [self._closed(each) for each in settlement.closed],
            "contradictions": [
                {"field": part.field, "alert": entry_of_alert(alert, self._source)}
                for part, alert in settlement.contradictions.items()
            ],
        }
        if doubtful is not None:
            plan["doubtful_ms"] = doubtful.ms
        if settlement.idle_since_ms is not None:
            plan["idle_since_ms"] = settlement.idle_since_ms
        if settlement.over is not None:
            plan["over"] = self._over(settlement.over)
        return plan

    def _closed(self, closed: FinishedText | Dropped) -> dict[str, Any]:
        plan = {
            "field": closed.part.field,
            "log": self._key(self._names.log(closed.part)),
            "log_bytes": closed.log_bytes,
            "late": closed.late,
        }
        return plan | self._text(closed) if isinstance(closed, FinishedText) else plan

    def _text(self, text: FinishedText) -> dict[str, Any]:
        json = stamped(text.message, self._source).model_dump_json()
        return {
            "item": self._key(self._names.item(text.part)),
            "item_field": f"{text.part.kind}:{text.part.content_index}",
            "id": text.message.id,
            "message": entry_of(text.message, json),
            "json": json,
            "digest": text_digest(text.message.text),
            **self._alert("opened", text.opened),
            **self._alert("finished", text.finished),
            **self._alert("contradicted", text.contradicted),
        }

    def _over(self, over: Over) -> dict[str, Any]:
        return {
            "alerts": [
                {"type": alert.type, "entry": entry_of_alert(alert, self._source)} for alert in over.alerts
            ],
            "refused": over.refused,
            "blocked": over.blocked,
            "cancelled": over.cancelled,
            "counted_for": [[scope, name[:NAME_LENGTH]] for scope, name in over.counted_for],
            "buckets": self._buckets_of(over.at_ms) if over.counted_for else [],
        }

    def _buckets_of(self, at_ms: int) -> list[int]:
        """The numbers of the buckets that a time belongs to, from 1."""
        numbers = []
        for series in self._series:
            start = series.start(at_ms)
            name = self._names.rates(series.width_ms, start)
            if name not in self._bucket_numbers:
                bucket = {
                    "key": self._key(name),
                    "names": self._key(self._names.rate_names(series.width_ms, start)),
                    "start_ms": start,
                    "expires_ms": series.expires(start),
                }
                self._buckets.append(bucket)
                self._bucket_numbers[name] = len(self._buckets)
            numbers.append(self._bucket_numbers[name])
        return numbers

    def _alert(self, name: str, alert: ModerationAlert | None) -> dict[str, list[str]]:
        return {} if alert is None else {name: entry_of_alert(alert, self._source)}
