"""What commit.lua is called with: keys, a plan in MessagePack, and blobs beside it.

Scripts declare every key, and the plan names keys and blobs by number. Binary values stand beside the plan,
because the servers' MessagePack reader knows text only. Everything in it goes by position, not by name: there
is one for every part of every batch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.core.effects import Note
from handlers.core.log import FRAGMENT_BYTES, encode_chunk
from service.keys import LOG
from service.storage.records import (
    arrival_field,
    encode_ending,
    encode_note,
    entry_of_alert,
    entry_of_letter,
    in_ms,
    note_of,
    register_field,
    register_value,
)
from service.storage.sent_cache import ToldPart, ToldResponse

if TYPE_CHECKING:
    from deltaloom.messages import ModerationAlert
    from handlers.core.identity import PartKey, StreamKey
    from service.keys import Keys
    from service.ports.commit import Commit, PartChange, ResponseChange
    from service.settings import Settings
    from service.storage.sent_cache import Told

STALLED_MS = 250
"""Milliseconds after which a worker that still holds an entry is taken for stuck: a batch takes a few.

Texts that are certain without that entry are finished from then on; those in doubt wait for it.
"""

AT_MOST = 500
"""Responses that a commit or a survey names as ready; the next survey names the rest."""

IDLE_GRAIN_MS = 1000
"""An open response is noted as if its latest entry had come so many milliseconds later. So it need be noted
only once a second, not with every batch; and nothing is given up too early, but up to a second late."""

SERVER_US = 25_000
"""Microseconds that a commit may take the server, by an estimate; a larger batch is cut."""

_ENTRY_US, _GROWN_US, _RESPONSE_US, _PART_US, _LETTER_US, _COUNT_US = 2.0, 1.5, 15.0, 12.0, 6.0, 9.0
"""What an entry, a log that only grows, another response, a part of it, a dead letter and a count take it."""

_BYTES_A_US = 450
"""Bytes of a call that it takes in a microsecond."""

_Untold = list[tuple["PartKey", ToldPart, "PartChange"]]
"""Parts of which not all was told before."""

_encode = msgspec.msgpack.Encoder().encode

LARGE_BYTES = 64 * 1024
"""What a part has beyond these counts for the bytes of its response, all of which is read to settle it."""


class CommitCall:
    """One call of commit.lua."""

    def __init__(self, commit: Commit, keys: Keys, settings: Settings, told: Told, history: str) -> None:
        """Plan it, leaving out what storage was told before, in this history of its data."""
        names = keys.names
        self.keys: list[str] = [
            names.deltas,
            names.dead_letters,
            names.alerts,
            keys.counts,
            keys.open,
            keys.waiting,
            keys.counted_types,
            keys.counted_fields,
            keys.owners,
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
        self._parts = 0
        self._untold: list[tuple[ToldResponse, StreamKey, ResponseChange, _Untold]] = []
        self.grown: list[tuple[StreamKey, ToldPart]] = []
        """Logs that only grow, in the order of their keys, and whose they are."""
        self.responses: list[StreamKey] = []
        """All other responses, in the order of the plan."""
        self._expected: list[tuple[ToldResponse, int]] = []
        """Responses to be noted as not idle, and until when."""
        chunks: list[bytes] = []
        logs: list[str] = []
        others = []
        for key, change in commit.responses.items():
            response = self._told.get(key) or ToldResponse(str(key), keys.state(key))
            if not self._plan_growth(response, key, change, logs, chunks):
                self.responses.append(key)
                others.append(self._response(response, key, change))
        letters = self._letters(commit)
        self.keys += logs
        plan = (
            in_ms(settings.state_ttl),
            settings.max_part_fragments,
            FRAGMENT_BYTES,
            settings.max_response_parts,
            AT_MOST,
            STALLED_MS,
            letters,
            [value for name, entries in commit.counts.items() for value in (name, len(entries))],
            [value for key, ms in commit.touched.items() for value in (ms, str(key))],
            others,
            len(logs),
            min(self._bytes_limit, settings.max_part_fragments * FRAGMENT_BYTES, LARGE_BYTES),
            len(names.name(LOG).encode()),
            [value for told, ms in self._expected for value in (ms, told.member)],
            history,
            commit.acknowledges,
            settings.max_open_responses,
            LARGE_BYTES,
            settings.max_response_bytes,
        )
        self.args: list[bytes] = [
            settings.consumer.encode(),
            b" ".join(commit.entries),
            _encode(plan),
            self._whose(commit),
            *self._blobs,
            *chunks,
        ]

    @property
    def server_us(self) -> float:
        """How long the script will take, in microseconds, about."""
        commit = self._commit
        letters = len(commit.dead_letters) + len(commit.crowded)
        size = sum(map(len, self.args))
        return (
            _ENTRY_US * len(commit.entries)
            + _GROWN_US * len(self.grown)
            + _RESPONSE_US * len(self.responses)
            + _PART_US * self._parts
            + _LETTER_US * letters
            + _COUNT_US * len(commit.counts)
            + size / _BYTES_A_US
        )

    def stored(self) -> None:
        """Remember what storage was told."""
        for told, key, change, parts in self._untold:
            told.tell(change.said)
            for part, told_part, added in parts:
                told_part.due = self._due
                told_part.tell_name(added.item_id, self._commit.named(added), ids_differ=added.ids_differ)
                told.parts[part] = told_part
            self._told.keep(key, told)
        for told, ms in self._expected:
            told.expected_ms = ms

    def _letters(self, commit: Commit) -> list[tuple[int, list[str], int, int]]:
        """Return each letter: its entry, its fields, `entry` as a blob, and where only one may be written.

        That is the key of its response's state, or 0. The blob may be large: in the plan it would be copied.
        """
        prefix = self._names.names.prefix
        letters = [(at, letter, 0) for at, letter in commit.dead_letters]
        letters += [
            (at, letter, self._key(self._names.state(key))) for key, (at, letter) in commit.crowded.items()
        ]
        return [
            (at, entry_of_letter(letter, prefix, without="entry"), self._blob(letter.entry.encode()), state)
            for at, letter, state in letters
        ]

    def _key(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys)

    def _blob(self, value: bytes) -> int:
        self._blobs.append(value)
        return len(self._blobs)

    def _plan_growth(
        self,
        told: ToldResponse,
        key: StreamKey,
        change: ResponseChange,
        logs: list[str],
        chunks: list[bytes],
    ) -> bool:
        """Plan a response of which nothing is new but fragments of texts that storage knows: nearly all.

        False, and nothing is planned, if there is more to tell.
        """
        if not change.parts or change.endings or change.entries or not told.knows(change.said):
            return False
        commit, now = self._commit, self._now
        parts = []
        for part, added in change.parts.items():
            told_part = told.parts.get(part)
            if (
                told_part is None
                or told_part.large
                or now >= told_part.due
                or added.opened is not None
                or not told_part.has_name(added.item_id, commit.named(added), ids_differ=added.ids_differ)
            ):
                return False
            parts.append((told_part, added))
        last = 0
        for told_part, added in parts:
            self.grown.append((key, told_part))
            logs.append(told_part.log)
            chunks.append(encode_chunk(commit.columns(added), (), None))
            last = max(last, added.entries[-1])
        self._touch(told, commit.milliseconds[last])
        return True

    def _touch(self, told: ToldResponse, ms: int) -> None:
        """Say when a response's latest entry came, unless it was said that one would come about now."""
        if ms > told.expected_ms:
            self._expected.append((told, _expected(ms)))

    def _response(self, told: ToldResponse, key: StreamKey, change: ResponseChange) -> tuple[Any, ...]:
        knows = told.knows(change.said)
        state = self._key(told.state)
        last = max(change.entries, default=0)
        parts: list[Any] = []
        untold: _Untold = []
        for part, added in change.parts.items():
            if added.entries and added.entries[-1] > last:
                last = added.entries[-1]
            self._part(told, part, change, parts, untold)
        if untold or not knows:
            self._untold.append((told, key, change, untold))
        return (
            state,
            self._key(self._names.marker(key)),
            told.member,
            _expected(self._commit.milliseconds[last]),
            knows and bool(change.said),
            _closing_ms(change),
            parts,
            () if knows else _registers(change),
            self._endings(change) if change.endings else (),
            self._notes_of(change),
            *_counts_of_notes(change),
        )

    def _part(
        self,
        response: ToldResponse,
        part: PartKey,
        change: ResponseChange,
        plan: list[Any],
        untold: _Untold,
    ) -> None:
        """Append what commit.lua takes of a part: nine values."""
        self._parts += 1
        added = change.parts[part]
        told = response.parts.get(part) or ToldPart(part.field, self._names.log(part))
        columns, named = self._commit.columns(added), self._commit.named(added)
        known = self._now < told.due and told.has_name(added.item_id, named, ids_differ=added.ids_differ)
        if known:
            chunk = encode_chunk(columns, added.closings, None)
        else:
            untold.append((part, told, added))
            at = None if added.item_id is None or named == self._commit.began(added) else named
            chunk = encode_chunk(columns, added.closings, added.item_id, at, ids_differ=added.ids_differ)
        plan += (
            self._key(told.log),
            self._blob(chunk),
            told.field,
            len(added.deltas),
            known,
            self._bytes_limit if added.deltas else self._closing_bytes_limit,
            self._alert(added.opened),
            added.closings and [digest for digest, _ in self._commit.says(change, added)],
            self._alert(added.contradicted),
        )

    def _alert(self, alert: ModerationAlert | None) -> list[str] | bool:
        return alert is not None and entry_of_alert(alert, self._names.names.prefix)

    def _notes_of(self, change: ResponseChange) -> list[Any]:
        notes = {**change.notes}
        for at, ending in change.endings.items():
            note = note_of(ending)
            if note != Note():
                notes[at] = note
        return [
            value
            for at, note in notes.items()
            for value in (arrival_field(at), self._blob(encode_note(note)))
        ]

    def _endings(self, change: ResponseChange) -> list[Any]:
        return [
            value
            for at, ending in change.endings.items()
            for value in (arrival_field(at), self._blob(encode_ending(ending)))
        ]

    def _whose(self, commit: Commit) -> bytes:
        """Which entries each response, each count and each log that only grows is made of."""
        others = [commit.responses[key] for key in self.responses]
        whole = set(self.responses)
        return _encode(
            (
                [([part.entries for part in each.parts.values()], list(each.entries)) for each in others],
                list(commit.counts.values()),
                [
                    part.entries
                    for key, each in commit.responses.items()
                    if key not in whole
                    for part in each.parts.values()
                ],
            )
        )


def _expected(ms: int) -> int:
    """Until when a response is not idle of which an entry came; entry ids may be as late as can be."""
    return min(ms + IDLE_GRAIN_MS, 2**64 - 1)


def _registers(change: ResponseChange) -> list[str]:
    registers = change.registers.items()
    return [value for name, at in registers for value in (register_field(name), register_value(at))]


def _counts_of_notes(change: ResponseChange) -> tuple[int, int]:
    """Return how many fields notes and endings of items take, and how many texts the notes announce."""
    item_ends = sum(ending.output_index is not None for ending in change.endings.values())
    return len(change.notes) + 2 * item_ends, sum(len(note.announced) for note in change.notes.values())


def _closing_ms(change: ResponseChange) -> int | bool:
    """When the first of its closings and endings came; False if it has none."""
    arrivals = list(change.endings)
    for part in change.parts.values():
        if part.closings:
            arrivals += [closing.arrival for closing in part.closings]
    return min(arrivals).entry.ms if arrivals else False
