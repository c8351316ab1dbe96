"""Build the arguments of commit.lua: keys, a plan in MessagePack, and blobs.

Scripts declare every key, so the plan refers to keys and blobs by index. Blobs hold the binary values,
because the server's MessagePack decoder reads text only. Items of the plan are identified by position, not by
name, to keep it small: it has one for each part in a batch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.core.effects import Note
from service.keys import LOG
from service.storage.part_codec import FRAGMENT_BYTES, encode_chunk
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
from service.storage.sent_cache import SentPart, SentResponse

if TYPE_CHECKING:
    from deltaloom.messages import ModerationAlert
    from handlers.core.identity import PartKey, StreamKey
    from service.keys import Keys
    from service.ports.commit import Commit, PartChange, ResponseChange
    from service.settings import Settings
    from service.storage.sent_cache import SentStates

STALLED_MS = 250
"""Milliseconds after which a worker that still holds an entry counts as stuck; a batch takes a few.

Texts that are certain without the entry are finished from then on. The others wait for it.
"""

AT_MOST = 500
"""Maximum responses that a commit or a survey reports as ready; the next survey reports the rest."""

IDLE_GRAIN_MS = 1000
"""Milliseconds added to a response's last activity, so that it is rewritten once a second instead of with
every batch. A response is given up at most this much late, never early."""

SERVER_US = 25_000
"""Maximum estimated server time of a commit, in microseconds; a larger batch is cut into pieces."""

_ENTRY_US, _FAST_LOG_US, _RESPONSE_US, _PART_US, _LETTER_US, _COUNT_US = 2.0, 1.5, 15.0, 12.0, 6.0, 9.0
"""Estimated server time, in microseconds, of an entry, a log on the fast path, a response on the slow path, a
part of such a response, a dead letter, and a count."""

_BYTES_A_US = 450
"""Estimated bytes of arguments that the server processes in a microsecond."""

_Unsent = list[tuple["PartKey", SentPart, "PartChange"]]
"""Parts with data that was not sent before."""

_encode = msgspec.msgpack.Encoder().encode

LARGE_BYTES = 64 * 1024
"""Bytes of a part that do not count for the bytes of its response, all of which is read to settle it."""


class CommitCall:
    """The keys and arguments of one call of commit.lua."""

    def __init__(
        self, commit: Commit, keys: Keys, settings: Settings, sent: SentStates, replication_id: str
    ) -> None:
        """Build the call, without the data that was sent before under the replication id `replication_id`."""
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
        self._sent = sent
        self._now = time.monotonic()
        self._due = self._now + settings.state_ttl / 4
        self._bytes_limit = settings.max_part_bytes
        # The closings of a full part still fit: its text and the copies of it.
        self._closing_bytes_limit = settings.max_part_bytes + 4 * settings.max_event_bytes
        self._blobs: list[bytes] = []
        self._parts = 0
        self._unsent: list[tuple[SentResponse, StreamKey, ResponseChange, _Unsent]] = []
        self.grown: list[tuple[StreamKey, SentPart]] = []
        """Logs on the fast path with their responses, in the order of their keys."""
        self.responses: list[StreamKey] = []
        """Responses on the slow path, in the order of the plan."""
        self._expected: list[tuple[SentResponse, int]] = []
        """Responses on the fast path, each with the milliseconds until which it is not idle."""
        chunks: list[bytes] = []
        logs: list[str] = []
        others = []
        for key, change in commit.responses.items():
            response = self._sent.get(key) or SentResponse(str(key), keys.state(key))
            if not self._plan_fast_path(response, key, change, logs, chunks):
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
            [value for sent, ms in self._expected for value in (ms, sent.member)],
            replication_id,
            commit.acknowledges,
            settings.max_open_responses,
            LARGE_BYTES,
            settings.max_response_bytes,
        )
        self.args: list[bytes] = [
            settings.consumer.encode(),
            b" ".join(commit.entries),
            _encode(plan),
            self._entries_of_effects(commit),
            *self._blobs,
            *chunks,
        ]

    @property
    def server_us(self) -> float:
        """Estimated server time of the script, in microseconds."""
        commit = self._commit
        letters = len(commit.dead_letters) + len(commit.crowded)
        size = sum(map(len, self.args))
        return (
            _ENTRY_US * len(commit.entries)
            + _FAST_LOG_US * len(self.grown)
            + _RESPONSE_US * len(self.responses)
            + _PART_US * self._parts
            + _LETTER_US * letters
            + _COUNT_US * len(commit.counts)
            + size / _BYTES_A_US
        )

    def stored(self) -> None:
        """Record the sent data, once storage has it."""
        for sent, key, change, parts in self._unsent:
            sent.record(change.context_claims)
            for part, sent_part, added in parts:
                sent_part.due = self._due
                sent_part.record_name(added.item_id, self._commit.named(added), ids_differ=added.ids_differ)
                sent.parts[part] = sent_part
            self._sent.keep(key, sent)
        for sent, ms in self._expected:
            sent.expected_ms = ms

    def _letters(self, commit: Commit) -> list[tuple[int, list[str], int, int]]:
        """Return each dead letter as (entry, fields, index of the blob for `entry`, index of a state).

        The state is that of a response that gets the letter once, or 0. The field `entry` is a blob: it may
        be large, and decoding the plan would copy it.
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

    def _plan_fast_path(
        self,
        sent: SentResponse,
        key: StreamKey,
        change: ResponseChange,
        logs: list[str],
        chunks: list[bytes],
    ) -> bool:
        """Plan a response on the fast path: the batch has only new fragments of parts that storage has.

        Return False, with nothing planned, if the response needs the slow path.
        """
        if not change.parts or change.endings or change.entries or not sent.knows(change.context_claims):
            return False
        commit, now = self._commit, self._now
        parts = []
        for part, added in change.parts.items():
            sent_part = sent.parts.get(part)
            if (
                sent_part is None
                or sent_part.large
                or now >= sent_part.due
                or added.opened is not None
                or not sent_part.has_name(added.item_id, commit.named(added), ids_differ=added.ids_differ)
            ):
                return False
            parts.append((sent_part, added))
        last = 0
        for sent_part, added in parts:
            self.grown.append((key, sent_part))
            logs.append(sent_part.log)
            chunks.append(encode_chunk(commit.columns(added), (), None))
            last = max(last, added.entries[-1])
        self._touch(sent, commit.milliseconds[last])
        return True

    def _touch(self, sent: SentResponse, ms: int) -> None:
        """Plan to record a response's last activity, unless the recorded time is later."""
        if ms > sent.expected_ms:
            self._expected.append((sent, _expected(ms)))

    def _response(self, sent: SentResponse, key: StreamKey, change: ResponseChange) -> tuple[Any, ...]:
        knows = sent.knows(change.context_claims)
        state = self._key(sent.state)
        last = max(change.entries, default=0)
        parts: list[Any] = []
        unsent: _Unsent = []
        for part, added in change.parts.items():
            if added.entries and added.entries[-1] > last:
                last = added.entries[-1]
            self._part(sent, part, change, parts, unsent)
        if unsent or not knows:
            self._unsent.append((sent, key, change, unsent))
        return (
            state,
            self._key(self._names.marker(key)),
            sent.member,
            _expected(self._commit.milliseconds[last]),
            knows and bool(change.context_claims),
            _closing_ms(change),
            parts,
            () if knows else _registers(change),
            self._endings(change) if change.endings else (),
            self._notes_of(change),
            *_counts_of_notes(change),
        )

    def _part(
        self,
        response: SentResponse,
        part: PartKey,
        change: ResponseChange,
        plan: list[Any],
        unsent: _Unsent,
    ) -> None:
        """Append the nine values of a part to the plan."""
        self._parts += 1
        added = change.parts[part]
        sent = response.parts.get(part) or SentPart(part.field, self._names.log(part))
        columns, named = self._commit.columns(added), self._commit.named(added)
        known = self._now < sent.due and sent.has_name(added.item_id, named, ids_differ=added.ids_differ)
        if known:
            chunk = encode_chunk(columns, added.closings, None)
        else:
            unsent.append((part, sent, added))
            at = None if added.item_id is None or named == self._commit.began(added) else named
            chunk = encode_chunk(columns, added.closings, added.item_id, at, ids_differ=added.ids_differ)
        plan += (
            self._key(sent.log),
            self._blob(chunk),
            sent.field,
            len(added.deltas),
            known,
            self._bytes_limit if added.deltas else self._closing_bytes_limit,
            self._alert(added.opened),
            added.closings and [digest for digest, _ in self._commit.stated_texts(change, added)],
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

    def _entries_of_effects(self, commit: Commit) -> bytes:
        """Return the entries of each response, each count and each log on the fast path, in MessagePack."""
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
    """Return the milliseconds until which a response is not idle after an entry, at most 2**64 - 1."""
    return min(ms + IDLE_GRAIN_MS, 2**64 - 1)


def _registers(change: ResponseChange) -> list[str]:
    registers = change.registers.items()
    return [value for name, at in registers for value in (register_field(name), register_value(at))]


def _counts_of_notes(change: ResponseChange) -> tuple[int, int]:
    """Return the number of fields for notes and endings of items, and of texts that the notes announce."""
    item_ends = sum(ending.output_index is not None for ending in change.endings.values())
    return len(change.notes) + 2 * item_ends, sum(len(note.announced) for note in change.notes.values())


def _closing_ms(change: ResponseChange) -> int | bool:
    """Return the milliseconds of the first closing or ending, or False if there is none."""
    arrivals = list(change.endings)
    for part in change.parts.values():
        if part.closings:
            arrivals += [closing.arrival for closing in part.closings]
    return min(arrivals).entry.ms if arrivals else False
