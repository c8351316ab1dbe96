"""From a batch of entries to what is to be stored: events to handlers, effects to parts."""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from handlers.core.assembly import StoredClosing, StoredFragment
from handlers.core.context import note
from handlers.core.effects import (
    Closing,
    Context,
    Effect,
    Ending,
    Fragment,
    Learned,
    Origin,
    UnattributableEventError,
)
from handlers.core.identity import Arrival, PartKey, StreamKey
from handlers.core.log import PartLog
from service.pipeline.dead_letters import dead_letter
from service.pipeline.decode import Said, Slot, Unreadable, UnreadableError, events_of, said_of, validated
from service.ports import Commit, PartChange, ResponseChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.core.routing import Route, RoutingTable
    from service.ports import Entry

_NOTHING_SAID = Context()

_TYPE_LENGTH = 100
"""Characters of an unknown event type that are kept, to count it by."""


class Batch:
    """Some entries of the input, read into one commit."""

    def __init__(
        self,
        entries: Sequence[Entry],
        table: RoutingTable,
        *,
        stream: str,
        now_ms: int,
        max_event_bytes: int,
        max_array_length: int,
    ) -> None:
        self.entries = list(entries)
        self.commit = Commit([entry.id for entry in entries])
        self._table = table
        self._stream = stream
        self._now_ms = now_ms
        self._max_event_bytes = max_event_bytes
        self._max_array_length = max_array_length
        for index, entry in enumerate(entries):
            self._read(index, entry)

    def take_out(self, part: PartKey, why: Unreadable) -> None:
        """Make a part's fragments dead letters or, where it has none left, its closings."""
        parts = self.commit.responses[part.stream_key].parts
        change = parts[part]
        taken: list[StoredFragment] | list[StoredClosing] = change.log.fragments or change.log.closings
        for event in taken:
            index = self.commit.entries.index(event.arrival.entry)
            slots = self._slots(self.entries[index])
            self._bury(index, why, slots[event.arrival.position] if len(slots) > 1 else None)
        taken.clear()
        change.opened = None
        change.entries.clear()
        if not change.log.closings:
            del parts[part]

    def bury_whole(self, entry: Entry, why: Unreadable) -> None:
        """Add an entry that is not to be read, and make it a dead letter."""
        self.entries.append(entry)
        self.commit.entries.append(entry.id)
        self._bury(len(self.entries) - 1, why)

    def said(self, index: int) -> Said:
        """What the producer said beside the events of an entry; nothing, if that cannot be read either."""
        try:
            return said_of(self.entries[index])
        except UnreadableError:
            return Said(None, Context())

    def _bury(self, index: int, why: Unreadable, only: Slot | None = None) -> None:
        letter = dead_letter(self.entries[index], why, stream=self._stream, now_ms=self._now_ms, only=only)
        self.commit.dead_letters.append((index, letter))

    def _read(self, index: int, entry: Entry) -> None:
        try:
            said = said_of(entry)
            slots = self._slots(entry)
        except UnreadableError as error:
            self._bury(index, error.why)
            return
        for position, slot in enumerate(slots):
            why = slot.why
            if why is None:
                route = self._table.routes.get(slot.value["type"])
                if route is None:
                    self._count(index, entry, slot.value, said)
                else:
                    why = self._handle(route, index, position, slot.value, said)
            if why is not None:
                self._bury(index, why, slot if len(slots) > 1 else None)

    def _slots(self, entry: Entry) -> list[Slot]:
        return events_of(entry, self._max_event_bytes, self._max_array_length)

    def _count(self, index: int, entry: Entry, event: dict[str, Any], said: Said) -> None:
        name = event["type"][:_TYPE_LENGTH].encode("utf-8", "replace").decode()
        self.commit.counts.setdefault(name, []).append(index)
        owner = said.response_id or event.get("item_id")
        if isinstance(owner, str) and owner.isprintable():
            key = StreamKey("response" if said.response_id else "item", owner)
            self.commit.touched[key] = max(entry.id.ms, self.commit.touched.get(key, 0))

    def _handle(
        self, route: Route, index: int, position: int, raw: dict[str, Any], said: Said
    ) -> Unreadable | None:
        """Ask the handler and note what it wants; why not, if the event or the handler is broken."""
        entry = self.entries[index]
        origin = Origin(Arrival(entry.id, position), said.response_id, said.context)
        try:
            effects = list(route.handle(validated(route, raw, entry), origin))
        except UnreadableError as error:
            return error.why
        except UnattributableEventError as error:
            return Unreadable("invalid_event", str(error))
        except Exception as error:  # noqa: BLE001  # whatever a handler raises costs its event only
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{PurePath(frame.filename).name}:{frame.lineno}"
            return Unreadable(
                "handler_error", f"the handler of {route.event_type} raised {type(error).__name__} at {place}"
            )
        for effect in effects:
            self._note(effect, origin, index)
        return None

    def _note(self, effect: Effect, origin: Origin, index: int) -> None:
        match effect:
            case Fragment():
                change = self._part(effect.part, effect.item_id, origin, index)
                change.entries.append(index)
                change.log.fragments.append(
                    StoredFragment(origin.arrival, effect.sequence_number, effect.delta)
                )
            case Closing():
                if effect.part.kind in self._table.kinds:
                    change = self._part(effect.part, effect.item_id, origin, index)
                    change.log.closings.append(StoredClosing(origin.arrival, effect.rank, effect.text))
            case Ending():
                copies = tuple(copy for copy in effect.copies if copy.kind in self._table.kinds)
                response = self._response(effect.stream_key, origin, index)
                response.endings[origin.arrival] = effect._replace(copies=copies)
            case Learned():
                response = self._response(effect.stream_key, origin, index)
                learned = Context(model=effect.model, safety_identifier=effect.safety_identifier)
                note(response.registers, learned, origin.arrival.entry, learned=True)

    def _response(self, key: StreamKey, origin: Origin, index: int) -> ResponseChange:
        response = self.commit.responses.get(key)
        if response is None:
            response = self.commit.responses[key] = ResponseChange()
        response.entries.add(index)
        response.latest_ms = max(response.latest_ms, origin.arrival.entry.ms)
        if origin.context != _NOTHING_SAID:
            note(response.registers, origin.context, origin.arrival.entry)
        return response

    def _part(self, part: PartKey, item_id: str | None, origin: Origin, index: int) -> PartChange:
        response = self._response(part.stream_key, origin, index)
        change = response.parts.get(part)
        if change is None:
            change = response.parts[part] = PartChange(PartLog([], [], item_id))
        elif change.log.item_id is None and item_id is not None:
            change.log = change.log._replace(item_id=item_id)
        return change
