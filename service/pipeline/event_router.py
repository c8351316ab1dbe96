"""Map the metadata of entries to responses and parts, with a cache.

Nearly all entries of a response have the same metadata (`response_id`, `tenant`, …). It is looked up byte for
byte, so that it is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UnsetType

from handlers.core.identity import PartKey, StreamKey
from service.pipeline.columns import can_be_key, join_metadata
from service.pipeline.decode import UnreadableError, producer_context_of
from service.pipeline.decoded_batch import EVENT, Rules
from service.ports.storage import Entry
from service.two_generation_cache import TwoGenerationCache

if TYPE_CHECKING:
    from deltaloom.messages import Kind
    from handlers.core.routing import RoutingTable
    from service.pipeline.columns import ColumnKey
    from service.pipeline.decode import ProducerContext

_REMEMBERED = 1000
"""Size of each cache generation, for sources and for targets. A cache holds up to twice as many; a miss costs
decoding the metadata again."""

OpenEntry = Callable[[bytes, Mapping[bytes, bytes], int], Entry]
"""A function from an entry's id, fields and number of deliveries to the opened entry.

It raises `UnreadableError` if the entry cannot be opened.
"""


class DeltaRule(NamedTuple):
    """The kind of text that a delta type adds to, and whether its parts go by `summary_index`."""

    kind: Kind
    by_summary_index: bool


class Source(NamedTuple):
    """The response that an entry's metadata names, with the producer context."""

    stream_key: StreamKey
    producer: ProducerContext


class Target(NamedTuple):
    """The place where the events of a column go: a part, a counter, or their handler."""

    source: Source
    event_type: str
    part: PartKey | None
    """Part that the deltas belong to; None if the events are only counted, or need their handler."""
    counted: bool
    """True if no handler takes their type: they are only counted."""


class EventRouter:
    """Finds the response and the part of each column, with caches that all batches of a partition share."""

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
        self._adds: Mapping[str, DeltaRule] = {
            name: DeltaRule(route.adds, "summary_index" in route.model.model_fields)
            for name, route in table.routes.items()
            if route.adds is not None
        }
        self.rules = Rules(
            needs_handler=table.routes.keys() - self._adds.keys(),
            adds_delta=self._adds.keys(),
            max_event_bytes=max_event_bytes,
            max_array_length=max_array_length,
        )
        """Rules for the decoding of entries."""
        self.max_entry_bytes = self.rules.max_entry_bytes
        self._sources: TwoGenerationCache[tuple[bytes, int], Source | None] = TwoGenerationCache(_REMEMBERED)
        self._targets: TwoGenerationCache[ColumnKey, Target] = TwoGenerationCache(_REMEMBERED)

    def target(self, key: ColumnKey, metadata: Sequence[bytes]) -> Target | None:
        """Return the target of a column's events; None if all of its entries have to take the slow path.

        They do so if the metadata has no usable response id, or repeats the field `event`.

        Args:
            key: the key of the column.
            metadata: the metadata of its entries; names and values alternate.
        """
        try:
            return self._targets[key]
        except KeyError:
            target = self._new_target(key, metadata)
            if target is not None and target.part is not None:  # other types hardly ever repeat
                self._targets[key] = target
            return target

    def _new_target(self, key: ColumnKey, metadata: Sequence[bytes]) -> Target | None:
        event_type, output_index, content_index, summary_index = key[2:]
        source = self._cached_source((key[0], key[1]), metadata)
        if source is None:
            return None
        rule = self._adds.get(event_type)
        if rule is None:
            return Target(source, event_type, None, event_type not in self.table.routes)
        index = summary_index if rule.by_summary_index else content_index
        if isinstance(index, UnsetType) or isinstance(output_index, UnsetType):
            return Target(source, event_type, None, counted=False)
        return Target(
            source, event_type, PartKey(source.stream_key, output_index, index, rule.kind), counted=False
        )

    def source(self, metadata: Sequence[bytes]) -> Source | None:
        """Return the response that an entry's metadata names; None if the entry has to take the slow path.

        It does so if the metadata has no usable response id, repeats the field `event`, or is too long or
        ambiguous for a key (see `can_be_key`).

        Args:
            metadata: the metadata of the entry; names and values alternate.
        """
        key = (join_metadata(metadata), len(metadata))
        return self._cached_source(key, metadata) if can_be_key(key[0], metadata) else None

    def _cached_source(self, key: tuple[bytes, int], metadata: Sequence[bytes]) -> Source | None:
        try:
            return self._sources[key]
        except KeyError:
            source = self._sources[key] = self._decode_source(metadata)
            return source

    def _decode_source(self, metadata: Sequence[bytes]) -> Source | None:
        names, values = metadata[::2], metadata[1::2]
        if EVENT in names:  # the field is repeated: the last value counts
            return None
        try:
            # Only the metadata counts: the id and the event are placeholders.
            producer = producer_context_of(
                self.open_entry(b"0-0", {EVENT: b"", **dict(zip(names, values, strict=True))}, 1)
            )
        except UnreadableError:
            return None
        if producer.response_id is None or not producer.response_id.isprintable():
            return None
        return Source(StreamKey("response", producer.response_id), producer)
