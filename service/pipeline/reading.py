"""How entries are read: handlers, limits, and what the producers said before, so that it is read once.

Nearly every entry of a response says the same beside its event (`response_id`, `tenant`, …). Whatever stands
there is looked up as it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UnsetType

from handlers.core.identity import PartKey, StreamKey
from service.pipeline.decode import UnreadableError, said_of
from service.ports import Entry
from service.recent import Recent

if TYPE_CHECKING:
    from deltaloom.messages import Kind
    from handlers.core.routing import RoutingTable
    from service.pipeline.decode import Said
    from service.pipeline.gathering import Where
    from service.ports import RawEntry

_REMEMBERED = 1000
"""Of so many sources and places, or twice as many, it is remembered what they are; forgetting one costs
reading it again."""

_BESIDE_BYTES = 4096
"""What stands beside an event is remembered up to this size."""

OpenEntry = Callable[[bytes, Mapping[bytes, bytes], int], Entry]
"""Opens an entry: its id, its fields, how often it was delivered."""


class Rule(NamedTuple):
    """What a delta adds to."""

    kind: Kind
    by_summary_index: bool


class Source(NamedTuple):
    """What stands beside the events of some entries: whose they are."""

    stream_key: StreamKey
    said: Said


class Place(NamedTuple):
    """Where events of one type from one source go."""

    source: Source
    event_type: str
    part: PartKey | None
    """What they are added to; None where they are counted, or where that is not so simple."""
    counted: bool
    """Whether there is no handler for them."""


class Reading:
    """What all batches of a worker share."""

    def __init__(
        self,
        table: RoutingTable,
        open_entry: OpenEntry,
        *,
        stream: str,
        max_event_bytes: int,
        max_array_length: int,
    ) -> None:
        self.table = table
        self.open_entry = open_entry
        self.stream = stream
        self.max_event_bytes = max_event_bytes
        self.max_array_length = max_array_length
        self.asked = frozenset(name for name, route in table.routes.items() if route.adds is None)
        """The types of events that only their handlers know what to do with."""
        self._rules: Mapping[str, Rule] = {
            name: Rule(route.adds, "summary_index" in route.model.model_fields)
            for name, route in table.routes.items()
            if route.adds is not None
        }
        self._sources: Recent[tuple[bytes, int], Source | None] = Recent(_REMEMBERED)
        self._places: Recent[Where, Place] = Recent(_REMEMBERED)

    def place(self, where: Where, entry: RawEntry) -> Place | None:
        """Where events go that were gathered; None if all of their entries have to be read the long way.

        Args:
            where: what they have in common.
            entry: one of their entries.
        """
        try:
            return self._places[where]
        except KeyError:
            place = self._place(where, entry)
            # Others hardly ever come again.
            if place is not None and place.part is not None and len(where[0]) <= _BESIDE_BYTES:
                self._places[where] = place
            return place

    def _place(self, where: Where, entry: RawEntry) -> Place | None:
        beside, fields, event_type, output_index, content_index, summary_index = where
        source = self.source((beside, fields), entry)
        if source is None:
            return None
        rule = self._rules.get(event_type)
        if rule is None:
            return Place(source, event_type, None, event_type not in self.table.routes)
        index = summary_index if rule.by_summary_index else content_index
        if isinstance(index, UnsetType) or isinstance(output_index, UnsetType):
            return Place(source, event_type, None, counted=False)
        return Place(
            source, event_type, PartKey(source.stream_key, output_index, index, rule.kind), counted=False
        )

    def source(self, beside: tuple[bytes, int], entry: RawEntry) -> Source | None:
        """Whose the events of an entry are; None if it has to be read the long way.

        Args:
            beside: what stands beside them, joined, and how many names and values the entry has.
            entry: that entry, or another one with the same beside.
        """
        try:
            return self._sources[beside]
        except KeyError:
            source = self._source_of(*entry)
            if len(beside[0]) <= _BESIDE_BYTES:
                self._sources[beside] = source
            return source

    def _source_of(self, entry_id: bytes, fields: list[bytes]) -> Source | None:
        if fields[0] in fields[2::2]:  # a name that is there twice: the last one counts
            return None
        if any(b"\0" in field for field in fields[2:]):  # another entry's might look the same, joined
            return None
        try:
            said = said_of(self.open_entry(entry_id, dict(zip(fields[::2], fields[1::2], strict=True)), 1))
        except UnreadableError:
            return None
        if said.response_id is None or not said.response_id.isprintable():
            return None
        return Source(StreamKey("response", said.response_id), said)
