"""Turn a batch of decoded entries into a commit: events go to handlers, effects go to parts.

Fast path: nearly all events are deltas, and a delta only adds a fragment to its part. A whole column of
deltas is added at once, without models or handlers. Events that no handler takes are only counted.

Slow path: all other events are validated by their models, and their handlers return the effects. Whatever
cannot be read becomes a dead letter.
"""

from __future__ import annotations

import traceback
from itertools import groupby, repeat
from operator import attrgetter, itemgetter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from deltaloom import limits
from deltaloom.reasons import reason_class
from handlers.core.assembly import StoredClosing
from handlers.core.context import context_of
from handlers.core.contradictions import Contradiction
from handlers.core.effects import (
    TRUNCATED,
    Announced,
    Closing,
    ContextValues,
    Copy,
    Effect,
    Ending,
    Fragment,
    Learned,
    Loss,
    Note,
    Origin,
    UnattributableEventError,
)
from handlers.core.identity import Arrival, PartKey, StreamKey
from handlers.core.outputs import contradiction_alert
from handlers.core.text import repair
from service.keys import BEYOND_LIMIT, LEFT_OUT, OTHER
from service.pipeline.batch_builder import SlowEvent, is_array
from service.pipeline.decode import ProducerContext, Slot, Unreadable, UnreadableError, fitted
from service.pipeline.frames import decode_raw
from service.pipeline.letters import Letters
from service.pipeline.opened import EntryOpener
from service.pipeline.times import believed
from service.ports.commit import Commit, PartChange, ResponseChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deltaloom.events import Event
    from deltaloom.reasons import ReasonClass
    from handlers.core.routing import Route
    from service.pipeline.batch_builder import DecodedBatch
    from service.pipeline.columns import Column
    from service.pipeline.sources import Reading, Source
    from service.ports.storage import Contradicted

_NAMES_AT_MOST = 1000
"""Maximum names of counts in a batch. A new name may evict another one, which costs server time."""

_TYPE_LENGTH = 100
"""Maximum characters of an unknown event type in the name of its count."""


_TOO_MANY_NOTES = Unreadable(
    "oversized",
    "this response has more announced texts, item endings, redactions and checksums than its state may hold; "
    f"further ones are counted as {BEYOND_LIMIT}",
)


class Batch:
    """A batch of input entries, read into one commit."""

    def __init__(
        self,
        decoded: DecodedBatch,
        reading: Reading,
        *,
        now_ms: int,
        deliveries: Mapping[bytes, int] | None = None,
        dead_letter: Unreadable | None = None,
    ) -> None:
        """Read the entries.

        Args:
            decoded: the entries, in the order of their ids.
            reading: the handlers and limits.
            now_ms: server time in ms since the epoch; the `failed_at` of dead letters.
            deliveries: number of deliveries by entry id. None or a missing id means 1.
            dead_letter: make every entry a dead letter with this reason, undecoded. None: read them.
        """
        self._reading = reading
        self._decoded = decoded
        self._opened = EntryOpener(decoded, reading, deliveries or {})
        self._now_ms = now_ms
        self._letters = Letters(reading.stream, now_ms)
        self.commit = _commit_of(decoded.ids)
        if dead_letter is None:
            self._read_all()
        else:
            for index in range(len(decoded)):
                self._letters.add(index, None, dead_letter)
                self._write_letters(index)
        self.commit.dead_letters = self._letters.all()

    def __len__(self) -> int:
        return len(self._decoded)

    def reject_parts(self, parts: Mapping[PartKey, Unreadable]) -> None:
        """Make the fragments of each part dead letters or, if it has no fragments, its closings."""
        places = [(*target, why) for part, why in parts.items() for target in self._removed_events(part)]
        for index, some in groupby(sorted(places, key=itemgetter(0)), key=itemgetter(0)):
            for _, position, why in some:
                self._reject(index, position, why)
            self._write_letters(index)
        self.commit.dead_letters = self._letters.all()

    def _removed_events(self, part: PartKey) -> list[tuple[int, int]]:
        """Remove a part's fragments or, if it has none, its closings; return their entries and positions."""
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
        change.opened = None
        if not change.closings:
            del parts[part]
        return places

    def leave_out(self, parts: Iterable[PartKey]) -> None:
        """Remove parts beyond the limit of their response, and count their events."""
        indexes = self.commit.indexes()
        for part in parts:
            change = self.commit.responses[part.stream_key].parts.pop(part)
            arrivals = [*(closing.arrival for closing in change.closings), *change.copies]
            self._leave_out_events(
                part.stream_key,
                [*change.entries, *(indexes[arrival.entry] for arrival in arrivals)],
                [*(change.positions or [0] * len(change.entries)), *(each.position for each in arrivals)],
                self._too_many_parts(),
            )

    def leave_out_notes(self, keys: Iterable[StreamKey]) -> None:
        """Remove item endings and notes of responses that have too many of them, and count their events."""
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
            self._leave_out_events(key, entries, [at.position for at in arrivals], _TOO_MANY_NOTES)

    def _leave_out_events(
        self, key: StreamKey, entries: Sequence[int], positions: Sequence[int] | None, why: Unreadable
    ) -> None:
        """Count events that are left out because their response has too many parts or notes.

        The first one of each response also becomes a dead letter with the reason: one letter, not thousands.
        """
        self.commit.counts.setdefault(BEYOND_LIMIT, []).extend(entries)
        if key not in self.commit.crowded:
            index, position = min(zip(entries, positions or repeat(0), strict=False))
            letter = self._letters.letter(index, self._opened[index], position, why)
            self.commit.crowded[key] = index, letter

    def _too_many_parts(self) -> Unreadable:
        most = self._reading.max_response_parts
        error = (
            f"this response has more than {most} parts; events of further parts are counted as {BEYOND_LIMIT}"
        )
        return Unreadable("oversized", error)

    def contradict(self, part: PartKey, stored: Contradicted) -> None:
        """Add an alert about the earliest text in this batch that contradicts a finished part.

        Do nothing if the part's closings have been rejected meanwhile because they were too large.
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
            context = context_of({**response.registers, **stored.registers})
            change.contradicted = contradiction_alert(
                Contradiction(
                    part, repair(first.text), None, context, believed(first.arrival.entry.ms, self._now_ms)
                )
            )

    def producer_context(self, index: int) -> ProducerContext:
        """Return the producer context of an entry; an empty one if the entry cannot be read."""
        try:
            return self._opened[index].producer
        except UnreadableError:
            return ProducerContext(None, ContextValues())

    def _reject(self, index: int, position: int, why: Unreadable) -> None:
        """Make an event a dead letter, or its whole entry if that has no other event."""
        try:
            alone = len(self._opened[index].slots) == 1
        except UnreadableError:  # the fast path accepts slightly more than the slow path
            alone = True
        self._letters.add(index, None if alone else position, why)

    def _write_letters(self, index: int) -> None:
        """Write the dead letters of an entry, if it has errors, while the entry is open."""
        if self._letters.wants(index):
            self._letters.write(index, self._opened[index])

    # ------------------------------------------------------------------------------------- the fast path

    def _read_all(self) -> None:
        needs_handler, slow_path = list(self._decoded.needs_handler), set(self._decoded.slow_path)
        for key, column in self._decoded.columns.items():
            target = self._reading.target(key, column.metadata)
            if target is None:
                slow_path.update(column.entries)
            elif target.counted:
                self._count_type(target.event_type, target.source.stream_key, column.entries)
            elif target.part is None:
                positions = column.all_positions() or repeat(0)
                needs_handler += map(SlowEvent, column.entries, positions, repeat(target.event_type))
            else:
                self._add(target.source, target.event_type, target.part, column)
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
                change.put_in_order()

    def _add(self, source: Source, event_type: str, part: PartKey, column: Column) -> None:
        """Add a column of deltas to its part."""
        response = self.commit.responses.get(part.stream_key)
        if response is None:
            response = self.commit.responses[part.stream_key] = ResponseChange()
        entries, positions = column.entries, column.all_positions()
        response.add_context(source.producer.context, self.commit.entry(entries[0]))
        self._count_truncated(source.producer.context.truncated, entries)
        change = response.parts.get(part)
        if change is None:
            if len(response.parts) >= self._reading.max_response_parts:
                self._leave_out_events(part.stream_key, entries, positions, self._too_many_parts())
                return
            change = response.parts[part] = PartChange()
        ends = [n for n, _ in column.item_ids[1:]]
        for (n, item_id), end in zip(column.item_ids, [*ends, len(entries)], strict=True):
            if item_id == "":
                self._count_left_out(event_type, "item_id", entries[n:end])
            else:
                self._name(response, change, item_id, entries[n:end], positions[n] if positions else 0)
        change.add(entries, positions, column.numbers, column.texts)

    # ------------------------------------------------------------------------------------- the slow path

    def _validate(self, index: int, events: Iterable[SlowEvent]) -> None:
        """Validate events of an entry by their models, and handle them.

        The models parse the JSON themselves, which is fastest. An event that its model refuses is read again
        by `_read`, which leaves out odd fields or finds the error.
        """
        _, fields = self._decoded.raw(index)
        source = self._reading.source(fields[2:])
        if source is None:
            self._read(index)
            return
        body = fields[1]
        raws = decode_raw(body) if is_array(body) else [body]
        refused = []
        for _, position, event_type in events:
            route = self._reading.table.routes[event_type]
            try:
                event = route.model.model_validate_json(bytes(raws[position]), strict=True)
            except ValidationError:
                refused.append(position)
            else:
                self._handle(index, position, source.producer, route, event)
        if refused:
            self._read(index, refused)

    def _read(self, index: int, only: Sequence[int] | None = None) -> None:
        """Read an entry, or only its events at some positions; make dead letters of unreadable events."""
        opened = self._opened[index]
        try:
            producer, slots = opened.producer, opened.slots
        except UnreadableError as error:
            self._letters.add(index, None, error.why)
            return
        for position in range(len(slots)) if only is None else only:
            self._handle_slot(
                index, position, producer, slots[position], strict=opened.entry.body is not None
            )

    def _handle_slot(
        self, index: int, position: int, producer: ProducerContext, slot: Slot, *, strict: bool
    ) -> None:
        """Handle an event, or count it if its type has no handler; make it a dead letter if it is invalid."""
        why = slot.why
        if why is None:
            route = self._reading.table.routes.get(slot.value["type"])
            if route is None:
                self._count_type(slot.value["type"], _owner(producer, slot.value), [index])
                return
            try:
                event, left_out = fitted(route, slot.value, strict=strict)
            except UnreadableError as error:
                why = error.why
            else:
                for name in left_out:
                    self._count_left_out(route.event_type, name, [index])
                self._handle(index, position, producer, route, event)
                return
        self._reject(index, position, why)

    def _handle(
        self, index: int, position: int, producer: ProducerContext, route: Route, event: Event
    ) -> None:
        """Add the effects that an event's handler returns; make the event a dead letter if that fails."""
        origin = Origin(Arrival(self.commit.entry(index), position), producer.response_id, producer.context)
        self._count_truncated(producer.context.truncated, [index])
        try:
            effects = _effects(route, event, origin)
        except UnreadableError as error:
            self._reject(index, position, error.why)
        else:
            self._note_all(effects, origin, index, route.event_type)
            if not effects:  # the count is the only trace of the event
                key = None if producer.response_id is None else StreamKey("response", producer.response_id)
                self._count_type(route.event_type, key, [index])

    def _count_truncated(self, names: Iterable[str], entries: Sequence[int]) -> None:
        """Count context values of these entries that were left out because they were too long."""
        for name in names:
            self.commit.counts.setdefault(f"{TRUNCATED}{name}", []).extend(entries)

    def _count_left_out(self, event_type: str, field: str, entries: Sequence[int]) -> None:
        """Count an invalid field that was left out of one event in each of these entries."""
        self._count(f"{LEFT_OUT}{event_type}:{field}", f"{LEFT_OUT}{OTHER}", entries)

    def _count(self, name: str, other: str, entries: Sequence[int]) -> None:
        """Count entries under a producer's name, or under `other` if the batch has too many names."""
        counts = self.commit.counts
        if name not in counts and len(counts) >= _NAMES_AT_MOST:
            name = other
        counts.setdefault(name, []).extend(entries)

    def _leave_out(
        self, response: ResponseChange, name: str, entries: Sequence[int], *, learned: bool = False
    ) -> None:
        """Record and count a value that was left out of one event in each entry because it is too long."""
        response.add_context(ContextValues(truncated=(name,)), self.commit.entry(entries[0]), learned=learned)
        self._count_truncated([name], entries)

    def _fitting(
        self, response: ResponseChange, name: str, value: str | None, most: int, entries: Sequence[int]
    ) -> str | None:
        """Return a value of at most `most` characters; record and count a longer one, and return None."""
        if value is None or len(value) <= most:
            return value
        self._leave_out(response, name, entries)
        return None

    def _name(
        self,
        response: ResponseChange,
        change: PartChange,
        item_id: str | None,
        entries: Sequence[int],
        position: int,
    ) -> None:
        """Record the item id of events in these entries; `position` is that of the first event."""
        change.name(self._fitting(response, "item_id", item_id, limits.ID, entries), entries[0], position)

    def _count_type(self, event_type: str, key: StreamKey | None, entries: Sequence[int]) -> None:
        """Count events of one type. `entries` must be in ascending order."""
        name = event_type[:_TYPE_LENGTH].encode("utf-8", "replace").decode()
        self._count(f"type:{name}", f"type:{OTHER}", entries)
        if key is not None:
            ms = self.commit.milliseconds[entries[-1]]
            self.commit.touched[key] = max(ms, self.commit.touched.get(key, ms))

    def _note_all(self, effects: Sequence[Effect], origin: Origin, index: int, event_type: str) -> None:
        kinds = self._reading.table.kinds
        for effect in effects:
            if isinstance(effect, Fragment):
                change = self._part(effect.part, effect.item_id, origin, index)
                position = origin.arrival.position
                if change is not None:
                    positions = [position] if position else None
                    change.add([index], positions, [effect.sequence_number], [effect.delta])
            elif isinstance(effect, Closing):
                if effect.part.kind in kinds:
                    self._close(effect, origin, index)
                elif effect.redacted:  # the count is the only trace of the event
                    self._count_type(event_type, None, [index])
            else:
                response = self._response(effect.stream_key, origin)
                response.entries.add(index)
                self._note(response, effect, origin, index, event_type)

    def _note(
        self,
        response: ResponseChange,
        effect: Ending | Learned | Loss | Announced,
        origin: Origin,
        index: int,
        event_type: str,
    ) -> None:
        """Add an effect on a response as a whole."""
        if isinstance(effect, Ending):
            response.endings[origin.arrival] = self._ending(response, effect, origin, index)
        elif isinstance(effect, Learned):
            self._learn(response, effect, index)
        elif isinstance(effect, Announced):
            copies = self._copies(response, effect, origin, index)
            if copies:
                response.notes[origin.arrival] = Note(announced=copies)
            else:  # the count is the only trace of the event
                self._count_type(event_type, None, [index])
        elif not response.lost:
            response.notes[origin.arrival] = Note(loss=True)
            response.lost = True

    def _close(self, closing: Closing, origin: Origin, index: int) -> None:
        change = self._part(closing.part, closing.item_id, origin, index)
        if change is None:
            return
        response = self.commit.responses[closing.part.stream_key]
        response.entries.add(index)
        note = Note(closing.checksum, closing.source, closing.redacted)
        if note != Note():
            response.notes[origin.arrival] = note
        stored = StoredClosing(origin.arrival, closing.rank, closing.text)
        change.close(stored, has_checksum=closing.checksum is not None)

    def _copies(
        self, response: ResponseChange, effect: Ending | Announced, origin: Origin, index: int
    ) -> tuple[Copy, ...]:
        """Return at most `max_response_parts` copies of enabled kinds, without item ids that are too long."""
        kinds, most = self._reading.table.kinds, self._reading.max_response_parts
        copies = [copy for copy in effect.copies if copy.kind in kinds]
        if len(copies) > most:
            self._leave_out_events(
                effect.stream_key, [index], [origin.arrival.position], self._too_many_parts()
            )
        return tuple(
            copy._replace(item_id=self._fitting(response, "item_id", copy.item_id, limits.ID, [index]))
            for copy in copies[:most]
        )

    def _ending(self, response: ResponseChange, ending: Ending, origin: Origin, index: int) -> Ending:
        """Return an ending with copies of enabled kinds only, and without values that are too long."""
        category, explanation = ending.provider_category, ending.provider_explanation
        return ending._replace(
            copies=self._copies(response, ending, origin, index),
            reason=self._fitting(response, "reason", ending.reason, limits.REASON, [index]),
            reason_class=self._class_of(response, ending, index),
            provider_category=self._fitting(response, "provider_category", category, limits.REASON, [index]),
            provider_explanation=self._fitting(
                response, "provider_explanation", explanation, limits.EXPLANATION, [index]
            ),
        )

    def _class_of(self, response: ResponseChange, ending: Ending, index: int) -> ReasonClass | None:
        """Return the class of an ending's reason; the table's class if the given one is too long."""
        if ending.class_left_out:
            self._leave_out(response, "reason_class", [index])
        given = self._fitting(response, "reason_class", ending.reason_class, limits.REASON, [index])
        return reason_class(ending.reason or "") if given is None and ending.reason_class else given

    def _learn(self, response: ResponseChange, learned: Learned, index: int) -> None:
        """Add the context values that an event gives for its response, without those that are too long."""
        context = ContextValues(model=learned.model, safety_identifier=learned.safety_identifier)
        for name, value in context.pairs():
            if len(value) > limits.NAME:
                self._leave_out(response, name, [index], learned=True)
                context = (
                    context._replace(model=None)
                    if name == "model"
                    else context._replace(safety_identifier=None)
                )
        response.add_context(context, self.commit.entry(index), learned=True)

    def _response(self, key: StreamKey, origin: Origin) -> ResponseChange:
        response = self.commit.responses.get(key)
        if response is None:
            response = self.commit.responses[key] = ResponseChange()
        response.add_context(origin.context, origin.arrival.entry)
        return response

    def _part(self, part: PartKey, item_id: str | None, origin: Origin, index: int) -> PartChange | None:
        """Return the change of a part; None if the response has too many parts, and the event is counted."""
        response = self._response(part.stream_key, origin)
        change = response.parts.get(part)
        if change is None:
            if len(response.parts) >= self._reading.max_response_parts:
                self._leave_out_events(
                    part.stream_key, [index], [origin.arrival.position], self._too_many_parts()
                )
                return None
            change = response.parts[part] = PartChange()
        self._name(response, change, item_id, [index], origin.arrival.position)
        return change


def _effects(route: Route, event: Event, origin: Origin) -> list[Effect]:
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
    """Return the stream key of an event without a handler; None if it has no usable id."""
    owner = producer.response_id or event.get("item_id")
    if isinstance(owner, str) and owner.isprintable():
        return StreamKey("response" if producer.response_id else "item", owner)
    return None


def _commit_of(entry_ids: list[bytes]) -> Commit:
    # A JSON array of integers is the fastest way to parse that many ids.
    numbers = _decode_numbers(b"[%b]" % b",".join(entry_ids).replace(b"-", b","))
    return Commit(entry_ids, numbers[::2], numbers[1::2])


_decode_numbers = msgspec.json.Decoder(list[int]).decode
