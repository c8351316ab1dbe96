"""From a batch of entries to what is to be stored: events to handlers, effects to parts.

Nearly all events are deltas, and a delta always adds a fragment to its part. So deltas go a short way: they
are gathered, and added all at once. (So is what nobody handles: it is only counted.) Everything else is read
by its model, and its handler says what to do.
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
    Context,
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
from service.pipeline.dead_letters import Letters
from service.pipeline.decode import Said, Slot, Unreadable, UnreadableError, fitted
from service.pipeline.frames import decode_raw
from service.pipeline.gathering import Asked, is_array
from service.pipeline.opened import Opener
from service.pipeline.times import believed
from service.ports.commit import Commit, PartChange, ResponseChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deltaloom.events import Event
    from deltaloom.reasons import ReasonClass
    from handlers.core.routing import Route
    from service.pipeline.columns import Column
    from service.pipeline.gathering import Gathered
    from service.pipeline.sources import Reading, Source
    from service.ports.storage import Contradicted

_NAMES_AT_MOST = 1000
"""Names that a batch counts something by: each may take the place of another, at the server's cost."""

_TYPE_LENGTH = 100
"""Characters of an unknown event type that are kept, to count it by."""


class Batch:
    """Some entries of the input, read into one commit."""

    def __init__(
        self,
        gathered: Gathered,
        reading: Reading,
        *,
        now_ms: int,
        deliveries: Mapping[bytes, int] | None = None,
        bury: Unreadable | None = None,
    ) -> None:
        """Read the entries.

        Args:
            gathered: the entries, in the order of their ids.
            reading: how to read them.
            now_ms: the time that dead letters tell.
            deliveries: how often an entry was delivered, by its id; once where it is left out.
            bury: make all of them dead letters, for this reason, without looking into them.
        """
        self._reading = reading
        self._gathered = gathered
        self._opened = Opener(gathered, reading, deliveries or {})
        self._now_ms = now_ms
        self._letters = Letters(reading.stream, now_ms)
        self.commit = _commit_of(gathered.ids)
        if bury is None:
            self._read_all()
        else:
            for index in range(len(gathered)):
                self._letters.add(index, None, bury)
                self._write_letters(index)
        self.commit.dead_letters = self._letters.all()

    def __len__(self) -> int:
        return len(self._gathered)

    def take_out(self, parts: Mapping[PartKey, Unreadable]) -> None:
        """Make the fragments of parts dead letters or, where one has none left, its closings."""
        places = [(*place, why) for part, why in parts.items() for place in self._taken_out(part)]
        for index, some in groupby(sorted(places, key=itemgetter(0)), key=itemgetter(0)):
            for _, position, why in some:
                self._bury(index, position, why)
            self._write_letters(index)
        self.commit.dead_letters = self._letters.all()

    def _taken_out(self, part: PartKey) -> list[tuple[int, int]]:
        """Take events out of a part; return their entries and positions."""
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
        """Leave out parts that are too many of their response."""
        indexes = self.commit.indexes()
        for part in parts:
            change = self.commit.responses[part.stream_key].parts.pop(part)
            arrivals = [*(closing.arrival for closing in change.closings), *change.copies]
            self._leave_out_events(
                part.stream_key,
                [*change.entries, *(indexes[arrival.entry] for arrival in arrivals)],
                [*(change.positions or [0] * len(change.entries)), *(each.position for each in arrivals)],
            )

    def leave_out_notes(self, keys: Iterable[StreamKey]) -> None:
        """Leave out endings of items and notes of responses that have too many of them."""
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
            self._leave_out_events(key, entries, [at.position for at in arrivals])

    def _leave_out_events(
        self, key: StreamKey, entries: Sequence[int], positions: Sequence[int] | None
    ) -> None:
        """Count events of a part that is one too many; in a letter, the first one of a response tells why.

        Whoever sends a thousand parts must not get a thousand letters.
        """
        self.commit.counts.setdefault(BEYOND_LIMIT, []).extend(entries)
        if key not in self.commit.crowded:
            index, position = min(zip(entries, positions or repeat(0), strict=False))
            letter = self._letters.letter(index, self._opened[index], position, self._too_many())
            self.commit.crowded[key] = index, letter

    def _too_many(self) -> Unreadable:
        most = self._reading.max_response_parts
        error = (
            f"this response has more than {most} parts; events of further ones are counted as {BEYOND_LIMIT}"
        )
        return Unreadable("oversized", error)

    def contradict(self, part: PartKey, stored: Contradicted) -> None:
        """Add the alert about the earliest other text that this batch has for a finished part.

        There is none if the batch has since lost the part's closings because they were too large.
        """
        response = self.commit.responses[part.stream_key]
        change = response.parts.get(part)
        if change is None:
            return
        others = [
            closing for digest, closing in self.commit.says(response, change) if digest != stored.digest
        ]
        if others:
            first = min(others)
            context = context_of({**response.registers, **stored.registers})
            change.contradicted = contradiction_alert(
                Contradiction(
                    part, repair(first.text), None, context, believed(first.arrival.entry.ms, self._now_ms)
                )
            )

    def said(self, index: int) -> Said:
        """What the producer said beside the events of an entry; nothing, if that cannot be read either."""
        try:
            return self._opened[index].said
        except UnreadableError:
            return Said(None, Context())

    def _bury(self, index: int, position: int, why: Unreadable) -> None:
        """Make an event of an entry a dead letter; all of the entry, if it has no other."""
        try:
            alone = len(self._opened[index].slots) == 1
        except UnreadableError:  # the quick way of reading takes a little more than the slow one does
            alone = True
        self._letters.add(index, None if alone else position, why)

    def _write_letters(self, index: int) -> None:
        """Write the dead letters of an entry while it is open."""
        if self._letters.wants(index):
            self._letters.write(index, self._opened[index])

    # ------------------------------------------------------------------------------------- the short way

    def _read_all(self) -> None:
        asked, others = list(self._gathered.asked), set(self._gathered.others)
        for where, column in self._gathered.columns.items():
            place = self._reading.place(where, column.beside)
            if place is None:
                others.update(column.entries)
            elif place.counted:
                self._count_type(place.event_type, place.source.stream_key, column.entries)
            elif place.part is None:
                positions = column.all_positions() or repeat(0)
                asked += map(Asked, column.entries, positions, repeat(place.event_type))
            else:
                self._add(place.source, place.event_type, place.part, column)
        by_entry = {index: list(some) for index, some in groupby(sorted(asked), key=attrgetter("entry"))}
        for index in sorted({*by_entry, *others}):
            if index in others:
                self._read(index)
            else:
                self._ask_models(index, by_entry[index])
            self._write_letters(index)
        for response in self.commit.responses.values():
            for change in response.parts.values():
                change.put_in_order()

    def _add(self, source: Source, event_type: str, part: PartKey, column: Column) -> None:
        """Add deltas to their part."""
        response = self.commit.responses.get(part.stream_key)
        if response is None:
            response = self.commit.responses[part.stream_key] = ResponseChange()
        entries, positions = column.entries, column.all_positions()
        response.say(source.said.context, self.commit.entry(entries[0]))
        self._count_truncated(source.said.context.truncated, entries)
        change = response.parts.get(part)
        if change is None:
            if len(response.parts) >= self._reading.max_response_parts:
                self._leave_out_events(part.stream_key, entries, positions)
                return
            change = response.parts[part] = PartChange()
        ends = [n for n, _ in column.item_ids[1:]]
        for (n, item_id), end in zip(column.item_ids, [*ends, len(entries)], strict=True):
            if item_id == "":
                self._count_left_out(event_type, "item_id", entries[n:end])
            else:
                self._name(response, change, item_id, entries[n:end], positions[n] if positions else 0)
        change.add(entries, positions, column.numbers, column.texts)

    # -------------------------------------------------------------------------------------- the long way

    def _ask_models(self, index: int, events: Iterable[Asked]) -> None:
        """Have events of an entry handled.

        The models read the JSON themselves: the quickest way as long as nobody wants to know what is wrong.
        """
        _, fields = self._gathered.raw(index)
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
                self._handle(index, position, source.said, route, event)
        if refused:
            self._read(index, refused)

    def _read(self, index: int, only: Sequence[int] | None = None) -> None:
        """Read an entry, or the events in some places of it; bury what cannot be read."""
        opened = self._opened[index]
        try:
            said, slots = opened.said, opened.slots
        except UnreadableError as error:
            self._letters.add(index, None, error.why)
            return
        for position in range(len(slots)) if only is None else only:
            self._ask(index, position, said, slots[position], strict=opened.entry.body is not None)

    def _ask(self, index: int, position: int, said: Said, slot: Slot, *, strict: bool) -> None:
        """Have an event handled, or counted; bury it if it cannot be."""
        why = slot.why
        if why is None:
            route = self._reading.table.routes.get(slot.value["type"])
            if route is None:
                self._count_type(slot.value["type"], _owner(said, slot.value), [index])
                return
            try:
                event, left_out = fitted(route, slot.value, strict=strict)
            except UnreadableError as error:
                why = error.why
            else:
                for name in left_out:
                    self._count_left_out(route.event_type, name, [index])
                self._handle(index, position, said, route, event)
                return
        self._bury(index, position, why)

    def _handle(self, index: int, position: int, said: Said, route: Route, event: Event) -> None:
        """Do what the handler of an event wants; bury the event if its handler cannot say."""
        origin = Origin(Arrival(self.commit.entry(index), position), said.response_id, said.context)
        self._count_truncated(said.context.truncated, [index])
        try:
            effects = _effects(route, event, origin)
        except UnreadableError as error:
            self._bury(index, position, error.why)
        else:
            self._note_all(effects, origin, index, route.event_type)
            if not effects:  # nothing else would say that it came
                key = None if said.response_id is None else StreamKey("response", said.response_id)
                self._count_type(route.event_type, key, [index])

    def _count_truncated(self, names: Iterable[str], entries: Sequence[int]) -> None:
        """Count values that were left out of these entries because they were too long."""
        for name in names:
            self.commit.counts.setdefault(f"{TRUNCATED}{name}", []).extend(entries)

    def _count_left_out(self, event_type: str, field: str, entries: Sequence[int]) -> None:
        """Count a field of an event in each entry that was left out because it cannot be used."""
        self._count(f"{LEFT_OUT}{event_type}:{field}", f"{LEFT_OUT}{OTHER}", entries)

    def _count(self, name: str, other: str, entries: Sequence[int]) -> None:
        """Count entries under a name that strangers chose, or as `other` if a batch has too many names."""
        counts = self.commit.counts
        if name not in counts and len(counts) >= _NAMES_AT_MOST:
            name = other
        counts.setdefault(name, []).extend(entries)

    def _leave_out(
        self, response: ResponseChange, name: str, entries: Sequence[int], *, learned: bool = False
    ) -> None:
        """Note and count that a value of one event in each entry is left out because it is too long."""
        response.say(Context(truncated=(name,)), self.commit.entry(entries[0]), learned=learned)
        self._count_truncated([name], entries)

    def _fitting(
        self, response: ResponseChange, name: str, value: str | None, most: int, entries: Sequence[int]
    ) -> str | None:
        """Return a value of at most `most` characters; note and count a longer one, and return None."""
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
        """Name a part by the item id of events in these entries; `position` is that of the first event."""
        change.name(self._fitting(response, "item_id", item_id, limits.ID, entries), entries[0], position)

    def _count_type(self, event_type: str, key: StreamKey | None, entries: Sequence[int]) -> None:
        """Count events of one type, in the order in which they came."""
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
                elif effect.redacted:  # nothing else would show that it came
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
        """Note an effect on a response as a whole."""
        if isinstance(effect, Ending):
            response.endings[origin.arrival] = self._ending(response, effect, origin, index)
        elif isinstance(effect, Learned):
            self._learn(response, effect, index)
        elif isinstance(effect, Announced):
            copies = self._copies(response, effect, origin, index)
            if copies:
                response.notes[origin.arrival] = Note(announced=copies)
            else:  # nothing else would show that it came
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
        """Return copies of enabled kinds, as many as a response may have parts, without too long ids."""
        kinds, most = self._reading.table.kinds, self._reading.max_response_parts
        copies = [copy for copy in effect.copies if copy.kind in kinds]
        if len(copies) > most:
            self._leave_out_events(effect.stream_key, [index], [origin.arrival.position])
        return tuple(
            copy._replace(item_id=self._fitting(response, "item_id", copy.item_id, limits.ID, [index]))
            for copy in copies[:most]
        )

    def _ending(self, response: ResponseChange, ending: Ending, origin: Origin, index: int) -> Ending:
        """Return an ending without what is too long, and with copies of the enabled kinds only."""
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
        """Return the class of an ending's reason; the table's if the one given is too long."""
        if ending.class_left_out:
            self._leave_out(response, "reason_class", [index])
        given = self._fitting(response, "reason_class", ending.reason_class, limits.REASON, [index])
        return reason_class(ending.reason or "") if given is None and ending.reason_class else given

    def _learn(self, response: ResponseChange, learned: Learned, index: int) -> None:
        """Note the values that an event gives for its response, without those that are too long."""
        said = Context(model=learned.model, safety_identifier=learned.safety_identifier)
        for name, value in said.pairs():
            if len(value) > limits.NAME:
                self._leave_out(response, name, [index], learned=True)
                said = said._replace(model=None) if name == "model" else said._replace(safety_identifier=None)
        response.say(said, self.commit.entry(index), learned=True)

    def _response(self, key: StreamKey, origin: Origin) -> ResponseChange:
        response = self.commit.responses.get(key)
        if response is None:
            response = self.commit.responses[key] = ResponseChange()
        response.say(origin.context, origin.arrival.entry)
        return response

    def _part(self, part: PartKey, item_id: str | None, origin: Origin, index: int) -> PartChange | None:
        """Return what the batch adds to a part; None, and the event is counted, if it is one too many."""
        response = self._response(part.stream_key, origin)
        change = response.parts.get(part)
        if change is None:
            if len(response.parts) >= self._reading.max_response_parts:
                self._leave_out_events(part.stream_key, [index], [origin.arrival.position])
                return None
            change = response.parts[part] = PartChange()
        self._name(response, change, item_id, [index], origin.arrival.position)
        return change


def _effects(route: Route, event: Event, origin: Origin) -> list[Effect]:
    """What the handler wants; `UnreadableError` if it is broken, or has nobody to do it for."""
    try:
        return list(route.handle(event, origin))
    except UnattributableEventError as error:
        raise UnreadableError("invalid_event", str(error)) from None
    except Exception as error:  # noqa: BLE001  # whatever a handler raises costs its event only
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{PurePath(frame.filename).name}:{frame.lineno}"
        what = f"the handler of {route.event_type} raised {type(error).__name__} at {place}"
        raise UnreadableError("handler_error", what) from None


def _owner(said: Said, event: dict[str, Any]) -> StreamKey | None:
    """What an event belongs to that no handler reads; None if it does not say, or in no way to count on."""
    owner = said.response_id or event.get("item_id")
    if isinstance(owner, str) and owner.isprintable():
        return StreamKey("response" if said.response_id else "item", owner)
    return None


def _commit_of(entry_ids: list[bytes]) -> Commit:
    # As JSON, since no other way of reading so many numbers is as quick.
    numbers = _decode_numbers(b"[%b]" % b",".join(entry_ids).replace(b"-", b","))
    return Commit(entry_ids, numbers[::2], numbers[1::2])


_decode_numbers = msgspec.json.Decoder(list[int]).decode
