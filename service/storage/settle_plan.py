"""Plan a call of settle.lua: keys, entries to write, and a plan in MessagePack with the indexes of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from handlers.core.text import text_digest
from service.keys import OTHER
from service.ports.storage import TextToWrite
from service.storage.buckets import MAX_NAMES, NAME_LENGTH, baseline_of, window_of
from service.storage.records import arrival_field, entry_of, entry_of_alert, in_ms, json_of, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaloom.messages import ModerationAlert
    from service.keys import Keys
    from service.ports.storage import CopyToDrop, ResponseOutcome, Settlement
    from service.settings import Settings

OVER_MS = 600_000
"""TTL in milliseconds of the state of a response that is over; less if texts are remembered for less.

Its end may come again, by a producer's retry or in a second event, and must count once. Most responses have
no text that is rebuilt, so they get no marker, and are not remembered for as long as texts are.
"""

_encode = msgspec.msgpack.Encoder().encode


class SettlePlan(NamedTuple):
    """A call of settle.lua, which may be repeated: a second run writes nothing again."""

    keys: Sequence[str]
    args: Sequence[bytes]


def plan_settlements(
    settlements: Sequence[Settlement], replication_id: str, keys: Keys, settings: Settings
) -> SettlePlan:
    """Plan the call that writes settlements.

    The call writes nothing unless the server's replication id is `replication_id`, under which the responses
    were read.
    """
    planner = _Planner(keys, settings)
    plan = {
        "settlements": [planner.settlement(settlement) for settlement in settlements],
        "marker_ttl_ms": in_ms(settings.remembered),
        "over_ttl_ms": min(OVER_MS, in_ms(settings.remembered)),
        "item_ttl_ms": in_ms(settings.item_ttl),
        "buckets": planner.buckets,
        "replication_id": replication_id,
        "names_at_most": MAX_NAMES,
        "other": OTHER,
    }
    return SettlePlan(planner.keys, [_encode(plan), *planner.entries])


class _Planner:
    """The keys, entries and buckets of a plan, which its settlements refer to by index from 1."""

    def __init__(self, keys: Keys, settings: Settings) -> None:
        names = keys.names
        self.keys: list[str] = [names.assembled, names.alerts, keys.counts, keys.open, keys.waiting]
        self.buckets: list[dict[str, int]] = []
        self.entries: list[bytes] = []
        """The packed fields of each entry to write. Inside the plan, they would be decoded into a table."""
        self._keys_of = keys
        self._prefix = names.prefix
        self._series = (window_of(settings), baseline_of(settings)) if settings.spike_window else ()
        self._bucket_numbers: dict[str, int] = {}

    def settlement(self, settlement: Settlement) -> dict[str, Any]:
        """Return the plan of a settlement, as settle.lua describes it, without fields that are not needed.

        Add the keys, entries and buckets that the plan refers to.
        """
        plan: dict[str, Any] = {
            "state": self._key(self._keys_of.state(settlement.stream_key)),
            "marker": self._key(self._keys_of.marker(settlement.stream_key)),
            "member": str(settlement.stream_key),
            "version": settlement.version,
            "applied_endings": [arrival_field(arrival) for arrival in settlement.applied_endings],
            "ended": settlement.ended,
            "closed": [self._closed(each) for each in settlement.closed],
        }
        if settlement.partial:
            plan["partial"] = True
        if settlement.earlier:
            plan["earlier"] = [part.field for part in settlement.earlier]
        if settlement.contradictions:
            plan["contradictions"] = [
                {"field": part.field, "alert": self._alert(alert)}
                for part, alert in settlement.contradictions.items()
            ]
        if settlement.unsettled_since is not None:
            plan["unsettled_ms"] = settlement.unsettled_since.ms
        if settlement.idle_since_ms is not None:
            plan["idle_since_ms"] = settlement.idle_since_ms
        if settlement.outcome is not None:
            plan["outcome"] = self._outcome(settlement.outcome)
        return plan

    def _key(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys)

    def _entry(self, fields: Sequence[str]) -> int:
        self.entries.append(packed(fields))
        return len(self.entries)

    def _alert(self, alert: ModerationAlert) -> int:
        return self._entry(entry_of_alert(alert, self._prefix))

    def _closed(self, closed: TextToWrite | CopyToDrop) -> dict[str, Any]:
        plan = {
            "field": closed.part.field,
            "log": self._key(self._keys_of.log(closed.part)),
            "log_bytes": closed.log_bytes,
        }
        if closed.late:
            plan["late"] = closed.late
        if isinstance(closed, TextToWrite):
            self._add_text(plan, closed)
        return plan

    def _add_text(self, plan: dict[str, Any], text: TextToWrite) -> None:
        part, message = text.part, text.message
        plan["item"] = self._key(self._keys_of.item(part))
        plan["item_field"] = f"{part.kind}:{part.content_index}"
        plan["id"] = message.id
        plan["message"] = self._entry(entry_of(message, json_of(message, self._prefix)))
        plan["digest"] = text_digest(message.text)
        alerts = (("opened", text.opened), ("finished", text.finished), ("contradicted", text.contradicted))
        for name, alert in alerts:
            if alert is not None:
                plan[name] = self._alert(alert)

    def _outcome(self, outcome: ResponseOutcome) -> dict[str, Any]:
        plan: dict[str, Any] = {
            "alerts": [{"type": alert.type, "entry": self._alert(alert)} for alert in outcome.alerts],
            "refusing": outcome.refusing,
            "counted_for": [[scope, name[:NAME_LENGTH]] for scope, name in outcome.counted_for],
            "buckets": self._buckets_of(outcome.at_ms) if outcome.counted_for else [],
        }
        for name in ("refused", "blocked", "cancelled"):
            if getattr(outcome, name):
                plan[name] = True
        return plan

    def _buckets_of(self, at_ms: int) -> list[int]:
        """Return the indexes, from 1, of the narrow and the wide bucket that contain a time.

        Buckets that the plan lacks are added. The list is empty if no rates are counted.
        """
        numbers = []
        for series in self._series:
            start = series.start(at_ms)
            name = self._keys_of.rates(series.width_ms, start)
            if name not in self._bucket_numbers:
                bucket = {
                    "key": self._key(name),
                    "names": self._key(self._keys_of.rate_names(series.width_ms, start)),
                    "start_ms": start,
                    "expires_ms": series.expires(start),
                }
                self.buckets.append(bucket)
                self._bucket_numbers[name] = len(self.buckets)
            numbers.append(self._bucket_numbers[name])
        return numbers
