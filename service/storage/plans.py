"""What commit.lua and settle.lua are called with: keys, a plan in MessagePack, and blobs beside it.

Scripts declare every key, and a plan names keys and blobs by number. Binary values stand beside the plan,
because the servers' MessagePack reader knows text only. A commit's plan is by position, not by name: there
is one for every part of every batch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.core.log import FRAGMENT_BYTES, encode_chunk
from service.alerts.spikes import OTHER
from service.storage.buckets import NAME_LENGTH, NAMES_AT_MOST, baseline_of, window_of
from service.storage.records import (
    arrival_field,
    encode_ending,
    entry_of,
    entry_of_letter,
    register_field,
    register_value,
)
from service.storage.told import ToldPart, ToldResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaloom.messages import ModerationAlert
    from handlers.core.identity import EntryId, PartKey, StreamKey
    from service.keys import Keys
    from service.ports import Commit, Over, PartChange, ResponseChange, Settlement
    from service.settings import Settings
    from service.storage.told import Told

STALLED_MS = 250
"""Milliseconds after which a worker that still holds an entry is taken for stuck: a batch takes a few.

Texts that are certain without that entry are finished from then on; those in doubt wait for it.
"""

AT_MOST = 500
"""Responses that a commit or a survey names as ready; the next survey names the rest."""

OVER_MS = 600_000
"""Milliseconds for which it is remembered that a response without any text of ours is over.

Its end may be said again, by a producer's retry or by a second event, and counts once. Most responses are
such, so that they are not remembered for as long as texts are.
"""

_Untold = list[tuple["PartKey", ToldPart, "EntryId | None"]]
"""Parts of which not all was told before, and the earliest entry whose item id is now."""

_encode = msgspec.msgpack.Encoder().encode


class CommitCall:
    """One call of commit.lua."""

    def __init__(self, commit: Commit, keys: Keys, settings: Settings, told: Told) -> None:
        """Plan it, leaving out what storage was told before."""
        names = keys.names
        self.keys: list[str] = [
            names.deltas,
            names.dead_letters,
            names.alerts,
            keys.counts,
            keys.open,
            keys.waiting,
        ]
        self._commit = commit
        self._names = keys
        self._told = told
        self._now = time.monotonic()
        self._due = self._now + settings.state_ttl / 4
        self._bytes_limit = settings.max_part_bytes
        # What closes a full part still fits: its text, and its copies.
        self._closing_bytes_limit = settings.max_part_bytes + 4 * settings.max_event_bytes
        self._blobs: list[bytes] = []
        self._untold: list[tuple[ToldResponse, StreamKey, ResponseChange, _Untold]] = []
        responses = [self._response(key, change) for key, change in commit.responses.items()]
        plan = (
            _ms(settings.state_ttl),
            settings.max_part_fragments,
            FRAGMENT_BYTES,
            AT_MOST,
            STALLED_MS,
            [value for at, letter in commit.dead_letters for value in (at, entry_of_letter(letter))],
            [value for name, entries in commit.counts.items() for value in (name, len(entries))],
            [value for key, ms in commit.touched.items() for value in (ms, str(key))],
            responses,
        )
        self.args: list[bytes] = [b" ".join(commit.entries), _encode(plan), _whose(commit), *self._blobs]

    def stored(self) -> None:
        """Remember what storage was told."""
        for told, key, change, parts in self._untold:
            for what, entry in change.said.items():
                told.said[what] = min(entry, told.said.get(what, entry))
            for part, told_part, named in parts:
                told_part.due = self._due
                told_part.named = named
                told.parts[part] = told_part
            self._told.keep(key, told)

    def _key(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys)

    def _blob(self, value: bytes) -> int:
        self._blobs.append(value)
        return len(self._blobs)

    def _response(self, key: StreamKey, change: ResponseChange) -> tuple[Any, ...]:
        told = self._told.get(key) or ToldResponse(str(key), self._names.state(key))
        knows = told.knows(change.said)
        state = self._key(told.state)
        last = max(change.entries, default=0)
        parts: list[Any] = []
        untold: _Untold = []
        for part, added in change.parts.items():
            if added.entries and added.entries[-1] > last:
                last = added.entries[-1]
            self._part(told, part, added, parts, untold)
        if untold or not knows:
            self._untold.append((told, key, change, untold))
        return (
            state,
            told.member,
            self._commit.milliseconds[last],
            knows and bool(change.said),
            _closing_ms(change),
            parts,
            () if knows else _registers(change),
            self._endings(change) if change.endings else (),
        )

    def _part(
        self, response: ToldResponse, part: PartKey, added: PartChange, plan: list[Any], untold: _Untold
    ) -> None:
        """Append what commit.lua takes of a part: seven values."""
        told = response.parts.get(part) or ToldPart(part.field, self._names.log(part))
        item_id = added.item_id
        known = self._now < told.due and (
            item_id is None or (told.named is not None and told.named <= self._commit.began(added))
        )
        if known:
            item_id = None
        else:
            untold.append((part, told, told.named if item_id is None else self._commit.began(added)))
        self.keys.append(told.log)
        self._blobs.append(encode_chunk(self._commit.columns(added), added.closings, item_id))
        plan += (
            len(self.keys),
            len(self._blobs),
            told.field,
            len(added.deltas),
            known,
            self._bytes_limit if added.deltas else self._closing_bytes_limit,
            added.opened is not None and _entry(added.opened),
        )

    def _endings(self, change: ResponseChange) -> list[Any]:
        return [
            value
            for at, ending in change.endings.items()
            for value in (arrival_field(at), self._blob(encode_ending(ending)))
        ]


def _registers(change: ResponseChange) -> list[str]:
    registers = change.registers.items()
    return [value for name, at in registers for value in (register_field(name), register_value(at))]


def _closing_ms(change: ResponseChange) -> int | bool:
    """When the first of its closings and endings came; False if it has none."""
    arrivals = list(change.endings)
    for part in change.parts.values():
        if part.closings:
            arrivals += [closing.arrival for closing in part.closings]
    return min(arrivals).entry.ms if arrivals else False


def _whose(commit: Commit) -> bytes:
    """Which entries each response and each count is made of."""
    return _encode(
        (
            [
                ([part.entries for part in change.parts.values()], list(change.entries))
                for change in commit.responses.values()
            ],
            list(commit.counts.values()),
        )
    )


class SettleCall:
    """One call of settle.lua."""

    def __init__(self, settlements: Sequence[Settlement], keys: Keys, settings: Settings) -> None:
        """Plan it."""
        names = keys.names
        self._names = keys
        self._series = (window_of(settings), baseline_of(settings)) if settings.spike_window else ()
        self._buckets: list[dict[str, int]] = []
        self._bucket_numbers: dict[str, int] = {}
        self.keys: list[str] = [names.assembled, names.alerts, keys.counts, keys.open, keys.waiting]
        plan = {
            "settlements": [self._settlement(settlement) for settlement in settlements],
            "marker_ttl_ms": _ms(settings.marker_ttl),
            "over_ttl_ms": min(OVER_MS, _ms(settings.marker_ttl)),
            "item_ttl_ms": _ms(settings.item_ttl),
            "buckets": self._buckets,
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
            "member": str(settlement.stream_key),
            "version": settlement.version,
            "spent": [arrival_field(arrival) for arrival in settlement.spent],
            "ended": settlement.ended,
            "texts": [],
        }
        if doubtful is not None:
            plan["doubtful_ms"] = doubtful.ms
        if settlement.idle_since_ms is not None:
            plan["idle_since_ms"] = settlement.idle_since_ms
        if settlement.over is not None:
            plan["over"] = self._over(settlement.over)
        for text in settlement.texts:
            json = text.message.model_dump_json()
            plan["texts"].append(
                {
                    "field": text.part.field,
                    "log": self._key(self._names.log(text.part)),
                    "log_bytes": text.log_bytes,
                    "item": self._key(self._names.item(text.part)),
                    "item_field": f"{text.part.kind}:{text.part.content_index}",
                    "message": entry_of(text.message, json),
                    "json": json,
                    "late": text.late,
                    **_alert("opened", text.opened),
                    **_alert("finished", text.finished),
                }
            )
        return plan

    def _over(self, over: Over) -> dict[str, Any]:
        return {
            "alerts": [{"type": alert.type, "entry": _entry(alert)} for alert in over.alerts],
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
                bucket = {"key": self._key(name), "start_ms": start, "expires_ms": series.expires(start)}
                self._buckets.append(bucket)
                self._bucket_numbers[name] = len(self._buckets)
            numbers.append(self._bucket_numbers[name])
        return numbers


def _alert(name: str, alert: ModerationAlert | None) -> dict[str, list[str]]:
    return {} if alert is None else {name: _entry(alert)}


def _entry(message: ModerationAlert) -> list[str]:
    return entry_of(message, message.model_dump_json())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
