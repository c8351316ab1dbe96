"""Turn a batch of decoded entries into a commit: events go to handlers, effects go to parts.

1. Columns: nearly all events are deltas, and a delta only adds a fragment to its part. A whole column of
   deltas is added at once, without models or handlers. A column of events without a handler is counted.
2. Events that need their handler: their models validate them, and the handler returns the effects.
3. Entries on the slow path: each is opened, and its events are read one by one. Whatever cannot be read
   becomes a dead letter.
"""

from __future__ import annotations

import traceback
from itertools import groupby, repeat
from operator import attrgetter, itemgetter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from handlers.core.context import context_of, merged
from handlers.core.contradictions import Contradiction
from handlers.core.effects import (
    ContextValues,
    Effect,
    Origin,
    UnattributableEventError,
)
from handlers.core.identity import Arrival, PartKey, StreamKey
from handlers.core.outputs import contradiction_alert
from handlers.core.text import repair
from service.pipeline.crowding import Crowding
from service.pipeline.decode import ProducerContext, Slot, Unreadable, UnreadableError, fitted
from service.pipeline.decoded_batch import HandlerEvent, is_array
from service.pipeline.effect_collector import EffectCollector
from service.pipeline.entry_opener import EntryOpener
from service.pipeline.event_counts import EventCounts
from service.pipeline.frames import decode_raw
from service.pipeline.letters import Letters
from service.pipeline.times import at_most_now
from service.ports.commit import Commit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from deltaloom.events import Event
    from handlers.core.routing import Route
    from service.pipeline.decoded_batch import DecodedBatch
    from service.pipeline.event_router import EventRouter
    from service.ports.storage import Contradicted

LETTERS_TRACED = 32
"""Maximum dead letters of a batch whose producers' traces are linked to the trace of the batch."""


class Batch:
    """A batch of input entries, and the commit made from them.

    The constructor fills `commit`. The other methods that change it are for a commit that storage refused.
    """

    def __init__(
        self,
        decoded: DecodedBatch,
        router: EventRouter,
        *,
        now_ms: int,
        deliveries: Mapping[bytes, int] | None = None,
        dead_letter: Unreadable | None = None,
    ) -> None:
        """Read the entries, and fill `commit` with their effects, counts and dead letters.

        Args:
            decoded: the entries, in the order of their ids.
            router: the handlers and limits.
            now_ms: server time in ms since the epoch; the `failed_at` of dead letters.
            deliveries: number of deliveries by entry id, for dead letters. None or a missing id means 1.
            dead_letter: make every entry a dead letter with this reason, undecoded. None: read them.
        """
        self._router = router
        self._decoded = decoded
        self._entries = EntryOpener(decoded, router, deliveries or {})
        self._now_ms = now_ms
        self._letters = Letters(router.stream, now_ms)
        self.commit = _commit_of(decoded.ids)
        self._counts = EventCounts(self.commit)
        self._slow_types: list[tuple[int, str]] = []
        """Types of the readable events of the entries in `_slow_entries`, each after its entry's index."""
        self._slow_entries: set[int] = set()
        """Indexes of the entries with all events read on the slow path."""
        self._crowding = Crowding(self.commit, self._entries, self._letters, router.max_response_parts)
        self._effects = EffectCollector(self.commit, router.table.kinds, self._counts, self._crowding)
        self._reads = dead_letter is None
        if dead_letter is None:
            self._read_all()
        else:
            for index in range(len(decoded)):
                self._letters.add(index, None, dead_letter)
                self._write_letters(index)
        self.commit.dead_letters = self._letters.all()

    def __len__(self) -> int:
        return len(self._decoded)

    def event_types(self, only: Collection[int] | None) -> dict[str, int]:
        """Return the number of events by type; empty if all entries became dead letters undecoded.

        An event counts if its type was read, even if it was left out or is a dead letter now. Only
        events of the entries with the indexes `only` count; None means all.
        """
        types: dict[str, int] = {}
        if not self._reads:
            return types
        slow, every = self._slow_entries, only is None and not self._slow_entries
        for key, column in self._decoded.columns.items():
            count = len(column.entries) if every else _count(column.entries, slow, only)
            types[key[2]] = types.get(key[2], 0) + count
        for event in self._decoded.needs_handler:
            if every or _count((event.entry,), slow, only):
                types[event.event_type] = types.get(event.event_type, 0) + 1
        for entry, event_type in self._slow_types:
            if only is None or entry in only:
                types[event_type] = types.get(event_type, 0) + 1
        return types

    def reject_parts(self, parts: Mapping[PartKey, Unreadable]) -> None:
        """Make dead letters of each part's fragments, or of its closings if it has no fragments.

        These events, and the part's opening alert, are removed from the commit. `parts` has the reason for
        each part.
        """
        places = [(*target, why) for part, why in parts.items() for target in self._remove_events(part)]
        for index, some in groupby(sorted(places, key=itemgetter(0)), key=itemgetter(0)):
            for _, position, why in some:
                self._reject(index, position, why)
            self._write_letters(index)
        self.commit.dead_letters = self._letters.all()

    def _remove_events(self, part: PartKey) -> list[tuple[int, int]]:
        """Remove a part's fragments or, if it has none, its closings; return their (entry index, position).

        Remove also the part's opening alert, and the part itself if nothing is left of it.
        """
        parts = self.commit.responses[part.stream_key].parts
        change = parts[part]
        if change.entries:
            places = list(zip(change.entries, change.positions or repeat(0), strict=False))
            change.clear()
        else:
            indexes = self.commit.indexes()
            arrivals = [*(closing.arrival for closing in change.closings), *change.copies]
            places = [(indexes[arrival.entry], arrival.position) for arrival in arrivals]
            change.closings.clear()
        change.opening_alert = None
        if not change.closings:
            del parts[part]
        return places

    def leave_out(self, parts: Iterable[PartKey]) -> None:
        """Remove parts from the commit because their response has too many, and count all their events.

        The earliest event of the first part that a response loses also becomes a dead letter, unless the
        batch already has such a letter about the response.
        """
        indexes = self.commit.indexes()
        for part in parts:
            change = self.commit.responses[part.stream_key].parts.pop(part)
            arrivals = [*(closing.arrival for closing in change.closings), *change.copies]
            self._crowding.leave_out_of_parts(
                part.stream_key,
                [*change.entries, *(indexes[arrival.entry] for arrival in arrivals)],
                [*(change.positions or [0] * len(change.entries)), *(each.position for each in arrivals)],
            )

    def leave_out_notes(self, keys: Iterable[StreamKey]) -> None:
        """Remove all item endings and notes that the batch has for these responses, and count their events.

        The earliest event of a response also becomes a dead letter, unless the batch already has a letter
        about too many parts or notes of that response.
        """
        indexes = self.commit.indexes()
        for key in keys:
            response = self.commit.responses[key]
            item_ends = [at for at, ending in response.endings.items() if ending.output_index is not None]
            arrivals = sorted({*response.notes, *item_ends})
            for at in arrivals:
                response.notes.pop(at, None)
            for at in item_ends:
                del response.endings[at]
            entries = [indexes[at.entry] for at in arrivals]
            self._crowding.leave_out_of_notes(key, entries, [at.position for at in arrivals])

    def contradict(self, part: PartKey, stored: Contradicted) -> None:
        """Set the alert `contradicted` of a part whose text is finished already.

        The alert is about the batch's earliest closing of the part with another text or another checksum.
        `stored` has the digest of the finished text, and the response's registers. Do nothing if `leave_out`
        or `reject_parts` has removed the closing from the commit.
        """
        response = self.commit.responses[part.stream_key]
        change = response.parts.get(part)
        if change is None:
            return
        others = [
            closing
            for digest, closing in self.commit.stated_texts(response, change)
            if digest != stored.digest
        ]
        if others:
            first = min(others)
            context = context_of(merged(response.registers, stored.registers))
            change.contradicted = contradiction_alert(
                Contradiction(
                    part, repair(first.text), None, context, at_most_now(first.arrival.entry.ms, self._now_ms)
                )
            )

    def producer_context(self, index: int) -> ProducerContext:
        """Return the producer context of the entry at an index; an empty one if it cannot be read.

        The entry is opened again, unless it was the last one opened.
        """
        try:
            return self._entries[index].producer
        except UnreadableError:
            return ProducerContext(None, ContextValues())

    def traceparents(self) -> set[str]:
        """Return the distinct `traceparent` values of entries that have effects, or are dead letters.

        Only the first `LETTERS_TRACED` dead letters are looked up, because each look-up opens an entry again.
        Events that are only counted have no effect.
        """
        contexts = [
            each for response in self.commit.responses.values() for each, _ in response.context_claims
        ]
        contexts += [
            self.producer_context(index).context for index, _ in self.commit.dead_letters[:LETTERS_TRACED]
        ]
        return {context.traceparent for context in contexts if context.traceparent is not None}

    def _reject(self, index: int, position: int, why: Unreadable) -> None:
        """Record that an event becomes a dead letter; `_write_letters` makes the letter.

        The letter has the whole entry if the event is the only one of its entry. `index` is the entry's index
        in the batch, `position` the event's index in the entry's array.
        """
        try:
            alone = len(self._entries[index].slots) == 1
        except UnreadableError:  # the columns take a few entries that cannot be opened
            alone = True
        self._letters.add(index, None if alone else position, why)

    def _write_letters(self, index: int) -> None:
        """Make the dead letters that were recorded for an entry, if any; they do not go to storage yet.

        Call it before another entry is opened, since the entry would then be opened twice.
        """
        if self._letters.wants(index):
            self._letters.write(index, self._entries[index])

    # ------------------------------------------------------------------------------------------- columns

    def _read_all(self) -> None:
        needs_handler, slow_path = list(self._decoded.needs_handler), set(self._decoded.slow_path)
        for key, column in self._decoded.columns.items():
            target = self._router.target(key, column.metadata)
            if target is None:
                slow_path.update(column.entries)
            elif target.counted:
                self._counts.count_type(target.event_type, target.source.stream_key, column.entries)
            elif target.part is None:
                positions = column.all_positions() or repeat(0)
                needs_handler += map(HandlerEvent, column.entries, positions, repeat(target.event_type))
            else:
                self._effects.add_column(target.source, target.event_type, target.part, column)
        by_entry = {
            index: list(some) for index, some in groupby(sorted(needs_handler), key=attrgetter("entry"))
        }
        for index in sorted({*by_entry, *slow_path}):
            if index in slow_path:
                self._read(index)
            else:
                self._validate(index, by_entry[index])
            self._write_letters(index)
        for response in self.commit.responses.values():
            for change in response.parts.values():
                if not change.in_order:
                    change.put_in_order()

    # ------------------------------------------------------- events for handlers, entries on the slow path

    def _validate(self, index: int, events: Iterable[HandlerEvent]) -> None:
        """Validate events of an entry by their models, and handle them.

        The models parse the JSON themselves, which is fastest. An event that its model refuses is read again
        by `_read`, which leaves out odd fields or finds the error. If the router cannot tell the response
        from the metadata, `_read` reads the entry as a whole instead.
        """
        _, fields = self._decoded.raw(index)
        source = self._router.source(fields[2:])
        if source is None:
            self._read(index)
            return
        body = fields[1]
        raws = decode_raw(body) if is_array(body) else [body]
        refused = []
        for _, position, event_type in events:
            route = self._router.table.routes[event_type]
            try:
                event = route.model.model_validate_json(bytes(raws[position]), strict=True)
            except ValidationError:
                refused.append(position)
            else:
                self._handle(index, position, source.producer, route, event)
        if refused:
            self._read(index, refused)

    def _read(self, index: int, only: Sequence[int] | None = None) -> None:
        """Read an entry on the slow path and handle all its events, or only those at the positions `only`.

        An event that cannot be read becomes a dead letter, and so does an entry that cannot be opened.
        """
        opened_entry = self._entries[index]
        if only is None:
            self._slow_entries.add(index)
        try:
            producer, slots = opened_entry.producer, opened_entry.slots
        except UnreadableError as error:
            self._letters.add(index, None, error.why)
            return
        strict = opened_entry.entry.body is not None
        for position in range(len(slots)) if only is None else only:
            slot = slots[position]  # once, because each access parses it
            if only is None and slot.why is None:
                self._slow_types.append((index, slot.value["type"]))
            self._handle_slot(index, position, producer, slot, strict=strict)

    def _handle_slot(
        self, index: int, position: int, producer: ProducerContext, slot: Slot, *, strict: bool
    ) -> None:
        """Handle an event, or count it if its type has no handler; make it a dead letter if it is invalid.

        Fields that its model refuses are left out and counted. `strict` is False for an event in flat fields,
        whose values are all strings.
        """
        why = slot.why
        if why is None:
            route = self._router.table.routes.get(slot.value["type"])
            if route is None:
                self._counts.count_type(slot.value["type"], _owner(producer, slot.value), [index])
                return
            try:
                event, left_out = fitted(route, slot.value, strict=strict)
            except UnreadableError as error:
                why = error.why
            else:
                for name in left_out:
                    self._counts.count_left_out(route.event_type, name, [index])
                self._handle(index, position, producer, route, event)
                return
        self._reject(index, position, why)

    def _handle(
        self, index: int, position: int, producer: ProducerContext, route: Route, event: Event
    ) -> None:
        """Call the handler of an event and add its effects to the commit.

        An event without effects is counted by its type. If the handler fails, the event becomes a dead
        letter. Context values of the producer that are too long are counted in any case.
        """
        origin = Origin(Arrival(self.commit.entry(index), position), producer.response_id, producer.context)
        self._counts.count_truncated(producer.context.truncated, [index])
        try:
            effects = _effects_of(route, event, origin)
        except UnreadableError as error:
            self._reject(index, position, error.why)
        else:
            self._effects.add_all(effects, origin, index, route.event_type)
            if not effects:  # the count is the only trace of the event
                key = None if producer.response_id is None else StreamKey("response", producer.response_id)
                self._counts.count_type(route.event_type, key, [index])


def _count(entries: Iterable[int], slow: Collection[int], only: Collection[int] | None) -> int:
    """Return how many of the entry indexes, repeats included, are in `only` but not in `slow`.

    None for `only` means that every index is in it.
    """
    return sum(entry not in slow and (only is None or entry in only) for entry in entries)


def _effects_of(route: Route, event: Event, origin: Origin) -> list[Effect]:
    """Call a handler and return its effects.

    Raises:
        UnreadableError: the event belongs to no response, or the handler raised an error.
    """
    try:
        return list(route.handle(event, origin))
    except UnattributableEventError as error:
        raise UnreadableError("invalid_event", str(error)) from None
    except Exception as error:  # noqa: BLE001  # any error of a handler costs only its event
        frame = traceback.extract_tb(error.__traceback__)[-1]
        target = f"{PurePath(frame.filename).name}:{frame.lineno}"
        what = f"the handler of {route.event_type} raised {type(error).__name__} at {target}"
        raise UnreadableError("handler_error", what) from None


def _owner(producer: ProducerContext, event: dict[str, Any]) -> StreamKey | None:
    """Return the stream key of an event without a handler: its response id, else its item id.

    None means that the id is missing, or is not a printable string.
    """
    owner = producer.response_id or event.get("item_id")
    if isinstance(owner, str) and owner.isprintable():
        return StreamKey("response" if producer.response_id else "item", owner)
    return None


def _commit_of(entry_ids: list[bytes]) -> Commit:
    # A JSON array of integers is the fastest way to parse that many ids.
    numbers = _decode_numbers(b"[%b]" % b",".join(entry_ids).replace(b"-", b","))
    return Commit(entry_ids, numbers[::2], numbers[1::2])


_decode_numbers = msgspec.json.Decoder(list[int]).decode
