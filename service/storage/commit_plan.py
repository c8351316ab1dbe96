"""Plan a call of commit.lua: keys, a plan in MessagePack, and blobs.

Scripts declare every key, so the plan refers to keys and blobs by index. Blobs hold the binary values,
because the server's MessagePack decoder does not know MessagePack's type for bytes. The plan is sent as
arrays. There is one for each part in `responses`, so names would be most of the plan. `ScriptPlan`,
`ResponsePlan` and `PartPlan` name the items in the order in which commit.lua unpacks them; a test compares
the names.

1. `plan_commit` is a function of its arguments and changes none of them. (Looking up a response in the cache
   `sent` only keeps it there for longer.)
2. A plan may be sent any number of times: a second run of commit.lua changes no text, alert or count.
3. Once the script has stored the commit, the caller records `CommitPlan.sends`. Until then the data counts as
   unsent, so a commit that is planned again, for whatever reason, sends it again.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import msgspec

from handlers.core.effects import Note
from service.keys import LOG
from service.storage.part_codec import FRAGMENT_BYTES, encode_chunk, encode_one
from service.storage.records import (
    arrival_field,
    encode_ending,
    encode_note,
    entry_of_alert,
    entry_of_letter,
    in_ms,
    note_of,
    packed,
    register_field,
    register_value,
)
from service.storage.sent_cache import PartSend, ResponseSend, Sends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaloom.messages import ModerationAlert
    from handlers.core.identity import PartKey, StreamKey
    from service.keys import Keys
    from service.ports.commit import Commit, PartChange, ResponseChange
    from service.settings import Settings
    from service.storage.sent_cache import SentPart, SentResponse, SentStates

STALLED_MS = 250
"""Milliseconds after which a worker that still holds an entry counts as stuck. A batch takes a few ms.

They begin when the worker gets the entry or renews it. Texts that the entry of a stuck worker cannot change
are finished. The other texts wait for it.
"""

MAX_RESPONSES = 500
"""Maximum responses that a commit or a survey reports as ready; the next survey reports the rest."""

IDLE_GRAIN_MS = 1000
"""Milliseconds added to the stored last activity of a response, so that it is rewritten once a second instead
of with every batch. A silent response is given up at most this much late, never early."""

MAX_SERVER_US = 25_000
"""Maximum estimated server time of a commit, in microseconds; a larger one is cut into pieces."""

_ENTRY_US = 1.0
"""Estimated server time of an entry, in microseconds. The constants below give that of other items of a plan.

All are about half of the processor time that was measured for several shapes of batches, on a machine of
half the speed of the one in docs/performance.md.
"""
_GROWING_LOG_US = 3.5
_RESPONSE_US = 12.0
_PART_US = 6.0
_OPENED_US = 12.0
_CLOSING_RESPONSE_US = 8.0
_ENDING_US = 6.0
_LETTER_US = 6.0
_COUNT_US = 9.0

_BYTES_A_US = 450
"""Estimated bytes of arguments that the server processes in a microsecond."""

UNCOUNTED_BYTES = 64 * 1024
"""Number of bytes at the beginning of each part's log that do not count for the limit of bytes of its
response. (The limit exists because a settlement reads the whole response.)"""

_SMALL_LOG_BYTES = 2048
"""Maximum bytes of a log, with its new chunk, that is planned as small: EXACT_BYTES of commit.lua. Only bytes
that this process has appended are counted; those of other workers are not known."""

_RENEWALS_PER_TTL = 4
"""Number of times that the TTL of an active part is set again during one TTL."""

_encode = msgspec.msgpack.Encoder().encode


_GrowingLog = tuple["PartKey", "SentPart", bytes, list[int]]
"""A stored part, its sent data, the new chunk, and for each new fragment the index of its entry in the batch,
from 0."""


class CommitPlan(msgspec.Struct, frozen=True, gc=False):
    """A call of commit.lua, and the data to record as sent once the call has succeeded.

    `keys` are all KEYS of the script. `args` is its ARGV from the second value on; the caller adds the first
    one, the consumer group.
    """

    keys: Sequence[str]
    args: Sequence[bytes]
    responses: Sequence[StreamKey]
    """Responses with a `ResponsePlan`, in the order of the script's plan."""
    growing_parts: Sequence[PartKey]
    """Parts for which the script only appends to a stored log. Their logs end `keys`, in this order."""
    sends: Sends
    """The data that the caller records as sent once the script has stored the commit."""
    server_us: float
    """Estimated server time of the script, in microseconds."""
    shared_us: float
    """The microseconds of `server_us` for entries, dead letters and counts. They do not depend on the
    responses, so the estimate for each piece of some responses includes them."""

    @property
    def pieces(self) -> int:
        """Number of pieces for the commit, each of at most about `MAX_SERVER_US`; 1 if it may stay whole.

        If `is_divisible`, each piece has some of the responses, and takes `shared_us` besides. The number may
        still exceed that of the responses. Otherwise it is the number of smaller batches into which the
        entries have to be divided.
        """
        if self.server_us <= MAX_SERVER_US:
            return 1
        if not self.is_divisible:
            return ceil(self.server_us / MAX_SERVER_US)
        return ceil((self.server_us - self.shared_us) / (MAX_SERVER_US - self.shared_us))

    @property
    def is_divisible(self) -> bool:
        """True if the commit can be cut by responses: `shared_us` is less than half of `MAX_SERVER_US`."""
        return self.shared_us < MAX_SERVER_US / 2


class ScriptPlan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The plan that commit.lua executes. The comments below the header of commit.lua describe the fields."""

    ttl_ms: int
    fragments_limit: int
    fragment_bytes: int
    parts_limit: int
    ready_at_most: int
    stalled_ms: int
    letters: Sequence[tuple[int, list[str], int, int]]
    counted: Sequence[str | int]
    touched: Sequence[int | str]
    responses: Sequence[ResponsePlan]
    log_count: int
    small_logs: int
    log_limit: int
    log_prefix: int
    active: Sequence[int | str]
    replication_id: str
    verifies: bool
    acknowledges: bool
    open_at_most: int
    uncounted_bytes: int
    large_limit: int
    read_ms: int
    may_be_owned: bool


class ResponsePlan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A response with all its changes, unless the script only has to append fragments to its stored logs.

    `response_of` in commit.lua describes the fields. `member` is the response's name in the sorted sets
    `open` and `waiting`.
    """

    state: int
    marker: int
    member: str
    activity_ms: int
    context_known: bool
    closing_ms: int | bool
    parts: Sequence[PartPlan]
    registers: Sequence[str]
    endings: Sequence[str | int]
    notes: Sequence[str | int]
    notes_count: int
    announced: int


class PartPlan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part in a `ResponsePlan`; `part_of` in commit.lua describes the fields.

    `log` is the index of a key; `chunk`, `opening_alert` and `contradiction_alert` are indexes of blobs. All
    begin at 1. An alert is False if the part has none.
    """

    log: int
    chunk: int
    field: str
    fragments: int
    known: bool
    limit: int
    opening_alert: int | bool
    digests: list[str]
    contradiction_alert: int | bool


def plan_commit(
    commit: Commit,
    sent: SentStates,
    keys: Keys,
    settings: Settings,
    replication_id: str,
    now: float,
    *,
    verifies: bool = True,
) -> CommitPlan:
    """Plan the call that stores a commit. Leave out the data that storage has according to `sent`.

    Args:
        commit: the batch, or a piece of one.
        sent: the data that was sent under the replication id `replication_id`.
        keys: the keys of the partition.
        settings: the limits of parts and responses, the TTL of a state, and the consumer.
        replication_id: the replication id under which storage may store the commit; empty for any.
        now: the monotonic time in seconds.
        verifies: False if the caller knows that the server's replication id is `replication_id`, so that the
            script does not compare them.
    """
    growing, full = _GrowingLogs(commit, now), _FullResponses(commit, keys, settings, now)
    for key, change in commit.responses.items():
        sent_response = sent.get(key)
        if sent_response is None or not growing.add(key, change, sent_response):
            full.add(key, change, sent_response)
    logs = growing.all
    plan = ScriptPlan(
        ttl_ms=in_ms(settings.state_ttl),
        fragments_limit=settings.max_part_fragments,
        fragment_bytes=FRAGMENT_BYTES,
        parts_limit=settings.max_response_parts,
        ready_at_most=MAX_RESPONSES,
        stalled_ms=STALLED_MS,
        letters=full.letters() if commit.dead_letters or commit.crowded else (),
        counted=[value for name, entries in commit.counts.items() for value in (name, len(entries))],
        touched=[value for key, ms in commit.touched.items() for value in (ms, str(key))],
        responses=full.plans,
        log_count=len(logs),
        small_logs=growing.small_count,
        # A log below this size exceeds no limit of a part or a response.
        log_limit=min(settings.max_part_bytes, settings.max_part_fragments * FRAGMENT_BYTES, UNCOUNTED_BYTES),
        log_prefix=len(keys.names.name(LOG).encode()),
        active=growing.active,
        replication_id=replication_id,
        verifies=verifies,
        acknowledges=commit.acknowledges,
        open_at_most=settings.max_open_responses,
        uncounted_bytes=UNCOUNTED_BYTES,
        large_limit=settings.max_response_bytes,
        read_ms=commit.read_ms,
        may_be_owned=commit.may_be_owned,
    )
    args = [
        settings.consumer.encode(),
        b" ".join(commit.entries),
        _encode(plan),
        _encode((full.entries, list(commit.counts.values()), [entries for _, _, _, entries in logs])),
        *full.blobs,
        *[chunk for _, _, chunk, _ in logs],
    ]
    shared_us = (
        _ENTRY_US * len(commit.entries) + _LETTER_US * len(plan.letters) + _COUNT_US * len(commit.counts)
    )
    return CommitPlan(
        [*full.keys, *[sent_part.log for _, sent_part, _, _ in logs]],
        args,
        full.responses,
        [part for part, _, _, _ in logs],
        Sends(
            full.sends,
            growing.activities,
            [(sent_part, len(chunk)) for _, sent_part, chunk, _ in logs],
            now + settings.state_ttl / _RENEWALS_PER_TTL,
        ),
        shared_us + _responses_us(plan) + sum(map(len, args)) / _BYTES_A_US,
        shared_us,
    )


def _responses_us(plan: ScriptPlan) -> float:
    """Return the estimated server time of all responses and growing logs of a plan, in microseconds."""
    us = _GROWING_LOG_US * plan.log_count + _RESPONSE_US * len(plan.responses)
    for response in plan.responses:
        us += _PART_US * len(response.parts) + _ENDING_US * len(response.endings) / 2
        us += _OPENED_US * sum([part.opening_alert is not False for part in response.parts])
        if response.closing_ms:
            us += _CLOSING_RESPONSE_US
    return us


class _GrowingLogs:
    """The logs of responses to which the batch only adds fragments, with the new chunk of each log.

    Small logs come first: the script reads all small ones with one command, and rewrites each in its exact
    size.
    """

    def __init__(self, commit: Commit, now: float) -> None:
        self._small: list[_GrowingLog] = []
        self._others: list[_GrowingLog] = []
        self.active: list[int | str] = []
        """Last activity to store, in ms since the epoch, and member name of a response, alternating.
        Responses whose stored last activity is recent enough are left out."""
        self.activities: list[tuple[StreamKey, int]] = []
        """Pairs of stream key and last activity to store, for the same responses as `active`."""
        self._commit = commit
        self._now = now

    def add(self, key: StreamKey, change: ResponseChange, sent_response: SentResponse) -> bool:
        """Add the logs of a response, unless it needs a `ResponsePlan`; return True if they were added.

        They are added if the batch only adds fragments, and storage has everything else according to
        `sent_response`, the data sent before. No part may need an opening alert, a new TTL, or a check of its
        log's size. Otherwise nothing is added. The response's last activity is added too if storage has to
        rewrite it.
        """
        if not change.parts or change.endings or change.effect_entries:
            return False
        if not sent_response.knows(change.context_claims):
            return False
        commit, sent_parts, now = self._commit, sent_response.parts, self._now
        milliseconds, seqs = commit.milliseconds, commit.seqs
        found: list[tuple[PartKey, PartChange, SentPart]] = []
        for part, part_change in change.parts.items():
            sent_part, item_id = sent_parts.get(part), part_change.item_id
            if (
                sent_part is None
                or sent_part.large
                or now >= sent_part.due
                or part_change.opening_alert is not None
            ):
                return False
            if item_id is not None:
                at = part_change.item_id_entry
                # Plain values instead of an EntryId, since this runs for each part of each batch.
                entry = (milliseconds[at], seqs[at])
                if not sent_part.has_item_id(item_id, entry, ids_differ=part_change.ids_differ):
                    return False
            found.append((part, part_change, sent_part))
        last = 0
        for part, part_change, sent_part in found:
            entries = part_change.entries
            chunk = _chunk_of_one(commit, part_change) if len(entries) == 1 else None
            if chunk is None:
                chunk = encode_chunk(commit.columns(part_change), (), None)
            small = sent_part.log_bytes + len(chunk) <= _SMALL_LOG_BYTES
            (self._small if small else self._others).append((part, sent_part, chunk, entries))
            last = max(last, entries[-1])
        ms = milliseconds[last]
        if ms > sent_response.activity_ms:
            activity_ms = _activity_ms(ms)
            self.active += (activity_ms, sent_response.member)
            self.activities.append((key, activity_ms))
        return True

    @property
    def all(self) -> list[_GrowingLog]:
        """The logs in the order of the script's plan: small ones first."""
        return self._small + self._others

    @property
    def small_count(self) -> int:
        """Number of logs in `all`, counted from the first, that are probably small."""
        return len(self._small)


def _chunk_of_one(commit: Commit, part_change: PartChange) -> bytes | None:
    """Return the chunk of a part to which the batch adds one fragment and nothing else.

    Return None if the chunk needs `encode_chunk`: the fragment has no number, a delta that is long or has a
    lone surrogate, or a position other than 0.
    """
    number = part_change.numbers[0]
    if number is None or part_change.positions is not None:
        return None
    first = part_change.entries[0]
    return encode_one(commit.milliseconds[first], commit.seqs[first], number, part_change.deltas[0])


class _FullResponses:
    """The responses with a `ResponsePlan` and the dead letters, with the keys and blobs that both refer to.

    Indexes of keys and blobs begin at 1, as in Lua.
    """

    def __init__(self, commit: Commit, keys: Keys, settings: Settings, now: float) -> None:
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
        self.blobs: list[bytes] = []
        self.responses: list[StreamKey] = []
        self.plans: list[ResponsePlan] = []
        self.entries: list[tuple[list[list[int]], list[int]]] = []
        """Two lists for each response, with indexes of entries in the batch, from 0. The first has a list for
        each part, with the entry of each of its fragments, repeats included. The second has the entries of
        other effects."""
        self.sends: list[ResponseSend] = []
        """The data that the plan sends because storage may lack it or a TTL is due. Responses without such
        data are left out."""
        self._commit = commit
        self._keys = keys
        self._now = now
        self._bytes_limit = settings.max_part_bytes
        # A full part must still get its closings, or it could never be finished: leave room for four events
        # with its text.
        self._closing_bytes_limit = settings.max_part_bytes + 4 * settings.max_event_bytes

    def add(self, key: StreamKey, change: ResponseChange, sent_response: SentResponse | None) -> None:
        """Add the plan of a response, with its keys, blobs and entries, and the data to record as sent.

        `sent_response` is the data of it that was sent before; None if none is cached, so that all is sent.
        """
        self.responses.append(key)
        self.plans.append(self._response(key, change, sent_response))
        entries_of_parts = [part_change.entries for part_change in change.parts.values()]
        self.entries.append((entries_of_parts, list(change.effect_entries)))

    def _response(
        self, key: StreamKey, change: ResponseChange, sent_response: SentResponse | None
    ) -> ResponsePlan:
        """Return the plan of a response; add the keys and blobs that it refers to.

        Also add to `sends` the data that storage may lack, and that of parts whose TTL is due.
        """
        claims = change.context_claims
        is_stored = sent_response.knows(claims) if sent_response else not claims
        if sent_response:
            member, state = sent_response.member, sent_response.state
        else:
            member, state = str(key), self._keys.state(key)
        state_key, marker_key = self._key(state), self._key(self._keys.marker(key))
        last = max(change.effect_entries, default=0)
        parts: list[PartPlan] = []
        newly_sent: list[PartSend] = []
        for part, part_change in change.parts.items():
            if part_change.entries and part_change.entries[-1] > last:
                last = part_change.entries[-1]
            parts.append(self._part(part, change, sent_response, newly_sent))
        if newly_sent or not is_stored:
            self.sends.append(ResponseSend(key, member, state, {} if is_stored else claims, newly_sent))
        return ResponsePlan(
            state=state_key,
            marker=marker_key,
            member=member,
            activity_ms=_activity_ms(self._commit.milliseconds[last]),
            context_known=is_stored and bool(claims),
            closing_ms=_closing_ms(change),
            parts=parts,
            registers=() if is_stored else _registers(change),
            endings=self._endings(change) if change.endings else (),
            notes=self._notes(change) if change.notes or change.endings else (),
            notes_count=_count_of_notes(change) if change.notes or change.endings else 0,
            announced=sum([len(note.announced) for note in change.notes.values()]),
        )

    def _part(
        self,
        part: PartKey,
        change: ResponseChange,
        sent_response: SentResponse | None,
        newly_sent: list[PartSend],
    ) -> PartPlan:
        """Return the plan of a part; add the key and the blobs that it refers to.

        Also add its data to `newly_sent` if storage may lack it or its TTL is due.
        """
        commit, part_change = self._commit, change.parts[part]
        sent_part = sent_response.parts.get(part) if sent_response else None
        field, log = (sent_part.field, sent_part.log) if sent_part else (part.field, self._keys.log(part))
        columns, closings = commit.columns(part_change), part_change.closings
        item_id, ids_differ = part_change.item_id, part_change.ids_differ
        entry = commit.item_id_entry(part_change)
        known = (
            sent_part is not None
            and self._now < sent_part.due
            and sent_part.has_item_id(item_id, entry, ids_differ=ids_differ)
        )
        if known:
            chunk = encode_chunk(columns, closings, None)
        else:
            at = None if item_id is None or entry == commit.began(part_change) else entry
            chunk = encode_chunk(columns, closings, item_id, at, ids_differ=ids_differ)
            newly_sent.append(PartSend(part, field, log, item_id, entry, ids_differ, len(chunk)))
        return PartPlan(
            log=self._key(log),
            chunk=self._blob(chunk),
            field=field,
            fragments=len(part_change.deltas),
            known=known,
            limit=self._bytes_limit if part_change.deltas else self._closing_bytes_limit,
            opening_alert=part_change.opening_alert is not None and self._alert(part_change.opening_alert),
            digests=[digest for digest, _ in commit.stated_texts(change, part_change)] if closings else [],
            contradiction_alert=part_change.contradicted is not None
            and self._alert(part_change.contradicted),
        )

    def letters(self) -> list[tuple[int, list[str], int, int]]:
        """Return the dead letters for the plan; add the blobs and state keys that they refer to.

        Each is (index of its entry in the batch, from 0; names and values of its fields, alternating; index
        of a blob, from 1; index of a state's key, from 1, or 0). The blob holds the letter's field `entry`,
        which may be large; decoding the plan would copy it. The last index is 0 except for a letter that is
        written only once for its response: the script records that in the state.
        """
        commit, prefix = self._commit, self._keys.names.prefix
        letters = [(at, letter, 0) for at, letter in commit.dead_letters]
        letters += [
            (at, letter, self._key(self._keys.state(key))) for key, (at, letter) in commit.crowded.items()
        ]
        return [
            (at, entry_of_letter(letter, prefix, without="entry"), self._blob(letter.entry.encode()), state)
            for at, letter, state in letters
        ]

    def _key(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys)

    def _blob(self, value: bytes) -> int:
        self.blobs.append(value)
        return len(self.blobs)

    def _alert(self, alert: ModerationAlert) -> int:
        return self._blob(packed(entry_of_alert(alert, self._keys.names.prefix)))

    def _notes(self, change: ResponseChange) -> list[str | int]:
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

    def _endings(self, change: ResponseChange) -> list[str | int]:
        return [
            value
            for at, ending in change.endings.items()
            for value in (arrival_field(at), self._blob(encode_ending(ending)))
        ]


def _activity_ms(ms: int) -> int:
    """Return the last activity to store for an entry of the time `ms`: `IDLE_GRAIN_MS` later, below 2**64."""
    return min(ms + IDLE_GRAIN_MS, 2**64 - 1)


def _registers(change: ResponseChange) -> list[str]:
    registers = change.registers.items()
    return [value for name, at in registers for value in (register_field(name), register_value(at))]


def _count_of_notes(change: ResponseChange) -> int:
    """Return the maximum number of fields that notes, and endings of items, add to the state.

    The ending of an item counts as two fields, since it may have a note. The ending of the response, and a
    note about it, count as none.
    """
    return len(change.notes) + 2 * sum(ending.output_index is not None for ending in change.endings.values())


def _closing_ms(change: ResponseChange) -> int | bool:
    """Return the ms since the epoch, from the entry's id, of the earliest closing or ending of a response.

    Return False, for Lua, if the batch has none.
    """
    arrivals = list(change.endings)
    for part in change.parts.values():
        if part.closings:
            arrivals += [closing.arrival for closing in part.closings]
    return min(arrivals).entry.ms if arrivals else False
