"""How entries are read: handlers, limits, and what the producers said before, so that it is read once.

Nearly every entry of a response says the same beside its event (`response_id`, `tenant`, …). Whatever stands
there is looked up as it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.identity import StreamKey
from service.pipeline.decode import UnreadableError, said_of
from service.ports import Entry

if TYPE_CHECKING:
    from deltaloom.messages import Kind
    from handlers.core.identity import PartKey
    from handlers.core.routing import RoutingTable
    from service.pipeline.decode import Said
    from service.ports import PartChange

_SOURCES = 2000
"""What so many responses' entries say is remembered; forgetting one costs reading it again."""

OpenEntry = Callable[[bytes, Mapping[bytes, bytes], int], Entry]
"""Opens an entry: its id, its fields, how often it was delivered."""


class Rule(NamedTuple):
    """What a delta adds to."""

    kind: Kind
    by_summary_index: bool


class Source:
    """What stands beside the events of some entries."""

    __slots__ = ("keys", "parts", "said", "stream_key")

    def __init__(self, stream_key: StreamKey, said: Said) -> None:
        self.stream_key = stream_key
        self.said = said
        self.keys: dict[tuple[Kind, int, int], PartKey] = {}
        """The parts that it had something of."""
        self.parts: dict[tuple[Kind, int, int], PartChange] = {}
        """What the batch that is being read has of it: by kind, output index and content index."""


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
        self.rules: Mapping[str, Rule] = {
            name: Rule(route.adds, "summary_index" in route.model.model_fields)
            for name, route in table.routes.items()
            if route.adds is not None
        }
        self.sources: dict[tuple[bytes, ...], Source | None] = {}

    def source(self, entry_id: bytes, fields: list[bytes]) -> Source | None:
        """What an entry says beside its first field; None if that has to be read the long way."""
        beside = tuple(fields[2:])
        try:
            return self.sources[beside]
        except KeyError:
            if len(self.sources) >= _SOURCES:
                self.sources.clear()
            source = self.sources[beside] = self._read(entry_id, fields)
            return source

    def _read(self, entry_id: bytes, fields: list[bytes]) -> Source | None:
        if fields[0] in fields[2::2]:  # a name that is there twice: the last one counts
            return None
        try:
            said = said_of(self.open_entry(entry_id, dict(zip(fields[::2], fields[1::2], strict=True)), 1))
        except UnreadableError:
            return None
        if said.response_id is None or not said.response_id.isprintable():
            return None
        return Source(StreamKey("response", said.response_id), said)
