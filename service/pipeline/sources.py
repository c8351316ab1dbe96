"""How entries are read: handlers, limits, and what the producers said before, so that it is read once.

Nearly every entry of a response says the same beside its event (`response_id`, `tenant`, …). Whatever stands
there is looked up as it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UnsetType

from handlers.core.identity import PartKey, StreamKey
from service.pipeline.columns import can_be_key, joined
from service.pipeline.decode import UnreadableError, said_of
from service.pipeline.gathering import EVENT, Rules
from service.ports.storage import Entry
from service.recent import Recent

if TYPE_CHECKING:
    from deltaloom.messages import Kind
    from handlers.core.routing import RoutingTable
    from service.pipeline.columns import Where
    from service.pipeline.decode import Said

_REMEMBERED = 1000
"""Of so many sources and places, or twice as many, it is remembered what they are; forgetting one costs
reading it again."""

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
        max_response_parts: int,
    ) -> None:
        self.table = table
        self.open_entry = open_entry
        self.stream = stream
        self.max_event_bytes = max_event_bytes
        self.max_array_length = max_array_length
        self.max_response_parts = max_response_parts
        self._adds: Mapping[str, Rule] = {
            name: Rule(route.adds, "summary_index" in route.model.model_fields)
            for name, route in table.routes.items()
            if route.adds is not None
        }
        self.rules = Rules(
            asked=table.routes.keys() - self._adds.keys(),
            added=self._adds.keys(),
            max_event_bytes=max_event_bytes,
            max_array_length=max_array_length,
        )
        """How the events of entries are gathered."""
        self.max_entry_bytes = self.rules.max_entry_bytes
        self._sources: Recent[tuple[bytes, int], Source | None] = Recent(_REMEMBERED)
        self._places: Recent[Where, Place] = Recent(_REMEMBERED)

    def place(self, where: Where, beside: Sequence[bytes]) -> Place | None:
        """Where events go that were gathered; None if all of their entries have to be read the long way.

        Args:
            where: what they have in common.
            beside: the names and values that stand beside them, in turn.
        """
        try:
            return self._places[where]
        except KeyError:
            place = self._place(where, beside)
            if place is not None and place.part is not None:  # others hardly ever come again
                self._places[where] = place
            return place

    def _place(self, where: Where, beside: Sequence[bytes]) -> Place | None:
        event_type, output_index, content_index, summary_index = where[2:]
        source = self._source((where[0], where[1]), beside)
        if source is None:
            return None
        rule = self._adds.get(event_type)
        if rule is None:
            return Place(source, event_type, None, event_type not in self.table.routes)
        index = summary_index if rule.by_summary_index else content_index
        if isinstance(index, UnsetType) or isinstance(output_index, UnsetType):
            return Place(source, event_type, None, counted=False)
        return Place(
            source, event_type, PartKey(source.stream_key, output_index, index, rule.kind), counted=False
        )

    def source(self, beside: Sequence[bytes]) -> Source | None:
        """Whose events are; None if their entries have to be read the long way.

        Args:
            beside: the names and values that stand beside them, in turn.
        """
        key = (joined(beside), len(beside))
        return self._source(key, beside) if can_be_key(key[0], beside) else None

    def _source(self, key: tuple[bytes, int], beside: Sequence[bytes]) -> Source | None:
        try:
            return self._sources[key]
        except KeyError:
            source = self._sources[key] = self._source_of(beside)
            return source

    def _source_of(self, beside: Sequence[bytes]) -> Source | None:
        names, values = beside[::2], beside[1::2]
        if EVENT in names:  # a name that is there twice: the last one counts
            return None
        try:
            said = said_of(self.open_entry(b"0-0", {EVENT: b"", **dict(zip(names, values, strict=True))}, 1))
        except UnreadableError:
            return None
        if said.response_id is None or not said.response_id.isprintable():
            return None
        return Source(StreamKey("response", said.response_id), said)
