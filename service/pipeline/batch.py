"""From a batch of entries to what is to be stored: events to handlers, effects to parts.

Nearly all events are deltas, and a delta always adds a fragment to its part. So deltas are read and added in
the shortest way there is; everything else is read by its model, and its handler says what to do.
"""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from handlers.core.assembly import StoredClosing
from handlers.core.effects import (
    Closing,
    Context,
    Effect,
    Ending,
    Fragment,
    Origin,
    UnattributableEventError,
)
from handlers.core.identity import Arrival, PartKey, StreamKey
from service.pipeline.dead_letters import dead_letter
from service.pipeline.decode import (
    Said,
    Slot,
    Unreadable,
    UnreadableError,
    events_of,
    said_of,
    slots_of,
    validated,
)
from service.pipeline.frames import Frame, frames_of
from service.ports import Commit, PartChange, ResponseChange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deltaloom.messages import Kind
    from handlers.core.routing import Route
    from service.pipeline.reading import Reading, Source
    from service.ports import Entry, RawEntry

_NOTHING_SAID = Context()

_TYPE_LENGTH = 100
"""Characters of an unknown event type that are kept, to count it by."""


class Batch:
    """Some entries of the input, read into one commit."""

    def __init__(
        self,
        entries: Sequence[RawEntry],
        reading: Reading,
        *,
        now_ms: int,
        deliveries: Mapping[bytes, int] | None = None,
        bury: Unreadable | None = None,
    ) -> None:
        """Read the entries.

        Args:
            entries: as the server gave them, in the order of their ids.
            reading: how to read them.
            now_ms: the time that dead letters tell.
            deliveries: how often an entry was delivered, by its id; once where it is left out.
            bury: make all of them dead letters, for this reason, without looking into them.
        """
        self._reading = reading
        self._rules = reading.rules
        self._now_ms = now_ms
        self._deliveries = deliveries or {}
        self._raw = entries
        self.commit = _commit_of(entries)
        self._sources: list[Source] = []
        if bury is not None:
            for index in range(len(self._raw)):
                self._bury(index, bury)
            return
        try:
            self._read_all()
        finally:
            for source in self._sources:
                source.parts = {}

    def __len__(self) -> int:
        return len(self._raw)

    def take_out(self, part: PartKey, why: Unreadable) -> None:
        """Make a part's fragments dead letters or, where it has none left, its closings."""
        parts = self.commit.responses[part.stream_key].parts
        change = parts[part]
        arrivals = [event.arrival for event in self.commit.fragments(change) or change.closings]
        for arrival in arrivals:
            index = self.commit.index(arrival.entry)
            slots = self._slots(self._entry(index))
            self._bury(index, why, slots[arrival.position] if len(slots) > 1 else None)
        if change.entries:
            change.clear()
        else:
            change.closings.clear()
        change.opened = None
        if not change.closings:
            del parts[part]

    def said(self, index: int) -> Said:
        """What the producer said beside the events of an entry; nothing, if that cannot be read either."""
        try:
            return said_of(self._entry(index))
        except UnreadableError:
            return Said(None, Context())

    def _entry(self, index: int) -> Entry:
        entry_id, fields = self._raw[index]
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        return self._reading.open_entry(entry_id, named, self._deliveries.get(entry_id, 1))

    def _bury(self, index: int, why: Unreadable, only: Slot | None = None) -> None:
        letter = dead_letter(
            self._entry(index), why, stream=self._reading.stream, now_ms=self._now_ms, only=only
        )
        self.commit.dead_letters.append((index, letter))

    # ------------------------------------------------------------------------------------- the short way

    def _read_all(self) -> None:
        reading = self._reading
        sources, longest, most = reading.sources, reading.max_event_bytes, reading.max_array_length
        for index, (entry_id, fields) in enumerate(self._raw):
            body = fields[1]
            frames = frames_of(body) if fields[0] == b"event" and len(body) <= longest else None
            source = None
            if frames is not None:
                source = sources.get(tuple(fields[2:])) or reading.source(entry_id, fields)
            if source is None or frames is None:
                self._read(index)
            elif isinstance(frames, Frame):
                if not self._take(source, index, 0, frames):
                    self._ask(index, source.said, slots_of(body, longest, most), (0,))
            elif len(frames) > most:
                self._read(index)
            else:
                left = [n for n, frame in enumerate(frames) if not self._take(source, index, n, frame)]
                if left:
                    self._ask(index, source.said, slots_of(body, longest, most), left)

    def _take(self, source: Source, index: int, position: int, frame: Frame) -> bool:
        """Take an event that no handler has to be asked about; False, and nothing done, for any other."""
        rule = self._rules.get(frame.type)
        if rule is None:
            if frame.type in self._reading.table.routes:
                return False
            self._count(index, frame.type, source.stream_key)
            return True
        kind, by_summary_index = rule
        place = frame.summary_index if by_summary_index else frame.content_index
        output_index, delta = frame.output_index, frame.delta
        if delta is UNSET or place is UNSET or output_index is UNSET:
            return False
        change = source.parts.get((kind, output_index, place))
        if change is None:
            change = self._begin(source, (kind, output_index, place), index)
        if change.item_id is None:
            change.item_id = frame.item_id
        if position or change.positions is not None:
            change.place(position)
        change.entries.append(index)
        change.numbers.append(frame.sequence_number)
        change.deltas.append(delta)
        return True

    def _begin(self, source: Source, where: tuple[Kind, int, int], index: int) -> PartChange:
        """A part, with the first that this batch has of it."""
        key = source.stream_key
        response = self.commit.responses.get(key)
        if response is None:
            response = self.commit.responses[key] = ResponseChange()
        if not source.parts:
            self._sources.append(source)
            if source.said.context != _NOTHING_SAID:
                response.say(source.said.context, self.commit.entry(index))
        part = source.keys.get(where)
        if part is None:
            kind, output_index, place = where
            part = source.keys[where] = PartKey(key, output_index, place, kind)
        change = response.parts.get(part)
        if change is None:
            change = response.parts[part] = PartChange()
        source.parts[where] = change
        return change

    # -------------------------------------------------------------------------------------- the long way

    def _read(self, index: int) -> None:
        entry = self._entry(index)
        try:
            said, slots = said_of(entry), self._slots(entry)
        except UnreadableError as error:
            self._bury(index, error.why)
        else:
            self._ask(index, said, slots, range(len(slots)), strict=entry.body is not None)

    def _ask(
        self, index: int, said: Said, slots: Sequence[Slot], positions: Sequence[int], *, strict: bool = True
    ) -> None:
        """Have the events at these positions of an entry handled; bury those that cannot be."""
        for position in positions:
            slot = slots[position]
            why = slot.why
            if why is None:
                route = self._reading.table.routes.get(slot.value["type"])
                if route is None:
                    self._count(index, slot.value["type"], _owner(said, slot.value))
                    continue
                origin = Origin(Arrival(self.commit.entry(index), position), said.response_id, said.context)
                try:
                    self._note_all(_effects(route, slot.value, origin, strict=strict), origin, index)
                except UnreadableError as error:
                    why = error.why
            if why is not None:
                self._bury(index, why, slot if len(slots) > 1 else None)

    def _slots(self, entry: Entry) -> list[Slot]:
        return events_of(entry, self._reading.max_event_bytes, self._reading.max_array_length)

    def _count(self, index: int, event_type: str, key: StreamKey | None) -> None:
        name = event_type[:_TYPE_LENGTH].encode("utf-8", "replace").decode()
        self.commit.counts.setdefault(name, []).append(index)
        if key is not None:
            self.commit.touched[key] = self.commit.milliseconds[index]

    def _note_all(self, effects: Sequence[Effect], origin: Origin, index: int) -> None:
        kinds = self._reading.table.kinds
        for effect in effects:
            if isinstance(effect, Fragment):
                change = self._part(effect.part, effect.item_id, origin)
                change.add(index, origin.arrival.position, effect.sequence_number, effect.delta)
            elif isinstance(effect, Closing):
                if effect.part.kind in kinds:
                    change = self._part(effect.part, effect.item_id, origin)
                    change.closings.append(StoredClosing(origin.arrival, effect.rank, effect.text))
                    self.commit.responses[effect.part.stream_key].entries.add(index)
            else:
                response = self._response(effect.stream_key, origin)
                response.entries.add(index)
                if isinstance(effect, Ending):
                    copies = tuple(copy for copy in effect.copies if copy.kind in kinds)
                    response.endings[origin.arrival] = effect._replace(copies=copies)
                else:
                    learned = Context(model=effect.model, safety_identifier=effect.safety_identifier)
                    response.say(learned, origin.arrival.entry, learned=True)

    def _response(self, key: StreamKey, origin: Origin) -> ResponseChange:
        response = self.commit.responses.get(key)
        if response is None:
            response = self.commit.responses[key] = ResponseChange()
        if origin.context != _NOTHING_SAID:
            response.say(origin.context, origin.arrival.entry)
        return response

    def _part(self, part: PartKey, item_id: str | None, origin: Origin) -> PartChange:
        response = self._response(part.stream_key, origin)
        change = response.parts.get(part)
        if change is None:
            change = response.parts[part] = PartChange(item_id)
        elif change.item_id is None:
            change.item_id = item_id
        return change


def _effects(route: Route, event: dict[str, Any], origin: Origin, *, strict: bool) -> list[Effect]:
    """What the handler wants; `UnreadableError` if the event or the handler is broken."""
    try:
        return list(route.handle(validated(route, event, strict=strict), origin))
    except UnreadableError:
        raise
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


def _commit_of(entries: Sequence[RawEntry]) -> Commit:
    ids = [entry_id for entry_id, _ in entries]
    numbers = list(map(int, b" ".join(ids).replace(b"-", b" ").split()))
    return Commit(ids, numbers[::2], numbers[1::2])
