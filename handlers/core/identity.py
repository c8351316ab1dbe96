"""Who is who: entries, arrivals, responses and parts.

A *part* is one text: (stream key, output index, content index, kind). The stream key is the
producer's response id, else the event's item id; with a response id the item id is only an attribute,
because servers change it from event to event, or use one twice.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from deltaloom.messages import Kind


def digest(purpose: str, name: str) -> str:
    """A deterministic id of what has this name, for one purpose: `<purpose>_` and 32 hexadecimal digits."""
    data = name.encode("utf-8", "surrogatepass")
    return f"{purpose}_{hashlib.blake2b(data, digest_size=16, person=purpose.encode()).hexdigest()}"


class EntryId(NamedTuple):
    """The id of a stream entry: milliseconds since the epoch, and a counter within the millisecond."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> EntryId:
        """Read `<ms>-<seq>`; `ValueError` for anything else."""
        ms, _, seq = text.partition("-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    def next(self) -> EntryId:
        """The smallest id after this one."""
        return EntryId(self.ms, self.seq + 1)


class Arrival(NamedTuple):
    """When an event came: its entry, and its position in the entry's array. Unique, and ordered."""

    entry: EntryId
    position: int


class StreamKey(NamedTuple):
    """What ties the events of one response together."""

    by: Literal["response", "item"]
    value: str

    @classmethod
    def parse(cls, text: str) -> StreamKey:
        """Read back what `str()` wrote."""
        by, _, value = text.partition(":")
        return cls("response" if by == "response" else "item", value)

    def __str__(self) -> str:
        return f"{self.by}:{self.value}"


class PartKey(NamedTuple):
    """One text of one response."""

    stream_key: StreamKey
    output_index: int
    content_index: int
    kind: Kind

    @property
    def field(self) -> str:
        """Its name within its response."""
        return f"{self.output_index}:{self.content_index}:{self.kind}"

    @classmethod
    def from_field(cls, stream_key: StreamKey, field: str) -> PartKey:
        """Read back what `field` wrote."""
        output_index, content_index, kind = field.split(":", 2)
        return cls(stream_key, int(output_index), int(content_index), kind)

    def digest(self, purpose: str) -> str:
        """A deterministic id of this part for one purpose."""
        return digest(purpose, f"{self.stream_key}\n{self.field}")
