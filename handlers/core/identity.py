"""Identify entries, arrivals, responses and parts.

A *part* is one text: (stream key, output index, content index, kind). The stream key is the producer's
response id, or the event's item id if there is none. With a response id, the item id is only an attribute:
some servers change it from event to event, or use one id twice.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from deltaloom.messages import Kind


def digest(purpose: str, name: str) -> str:
    """Return a deterministic id for a name and a purpose: `<purpose>_` and 32 hexadecimal digits.

    Raises:
        ValueError: the purpose has more than 16 bytes.
    """
    data = name.encode("utf-8", "surrogatepass")
    return f"{purpose}_{hashlib.blake2b(data, digest_size=16, person=purpose.encode()).hexdigest()}"


class EntryId(NamedTuple):
    """The id of a stream entry: milliseconds since the epoch, and a counter within the millisecond."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> EntryId:
        """Parse `<ms>-<seq>`.

        Raises:
            ValueError: a half of the text is missing, or is no integer.
        """
        ms, _, seq = text.partition("-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    def next(self) -> EntryId:
        """Return the smallest id after this one."""
        return EntryId(self.ms, self.seq + 1)


class Arrival(NamedTuple):
    """The place of an event in the stream: its entry, and its position in the entry's array from 0.

    Arrivals are unique, and sorted in the order of the stream.
    """

    entry: EntryId
    position: int

    @classmethod
    def at(cls, ms: int, seq: int, position: int) -> Arrival:
        """Return `Arrival(EntryId(ms, seq), position)`, in a fraction of the time of the two constructors."""
        return _new(Arrival, (_new(EntryId, (ms, seq)), position))


_new = tuple.__new__


class StreamKey(NamedTuple):
    """The identity of a response: its response id, or an item id if the producer gave no response id."""

    by: Literal["response", "item"]
    value: str

    @classmethod
    def parse(cls, text: str) -> StreamKey:
        """Parse `response:<response id>` or `item:<item id>`, the result of `str()`, without any check.

        Text that begins otherwise counts as that of an item.
        """
        by, _, value = text.partition(":")
        return cls("response" if by == "response" else "item", value)

    def __str__(self) -> str:
        return f"{self.by}:{self.value}"


@lru_cache(maxsize=1024)  # nearly all parts are at one of a few places
def _place_in(field: str) -> tuple[int, int, Kind]:
    output_index, content_index, kind = field.split(":", 2)
    return int(output_index), int(content_index), kind


class PartKey(NamedTuple):
    """The identity of a part: one text of one response."""

    stream_key: StreamKey
    output_index: int
    content_index: int
    kind: Kind

    @property
    def field(self) -> str:
        """Name of the part within its response: `<output index>:<content index>:<kind>`."""
        return f"{self.output_index}:{self.content_index}:{self.kind}"

    @classmethod
    def from_field(cls, stream_key: StreamKey, field: str) -> PartKey:
        """Return the part of a response that has the name `field`, as the property `field` gives it.

        The kind is all that follows the second colon, and is not checked.

        Raises:
            ValueError: the name has fewer than three values, or an index is no integer.
        """
        return cls(stream_key, *_place_in(field))

    def digest(self, purpose: str) -> str:
        """Return a deterministic id of this part for a purpose: `<purpose>_` and 32 hexadecimal digits."""
        return digest(purpose, f"{self.stream_key}\n{self.field}")
