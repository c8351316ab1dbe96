"""The names of the public streams and keys, and how a producer picks a partition.

A producer for 16 partitions writes the events of `resp_42` to `Partitions(16).of("resp_42").deltas`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

GROUP = "deltaloom"
"""The worker's consumer group on the input stream."""


def partition_of(response_id: str, partitions: int) -> int:
    """The partition, 0 … partitions-1, that takes all events of one response.

    CRC-32 as in zlib over the UTF-8 bytes, so that every language can compute it. Events without a
    response id go by their item id, which is their identity then.
    """
    return zlib.crc32(response_id.encode()) % partitions


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The public names under one prefix, of one partition where there are several.

    With a partition the names carry it as a Redis Cluster hash tag (`deltaloom:{3}:deltas`), so that
    all keys of a partition share a slot; without one they carry no braces.
    """

    prefix: str = "deltaloom"
    partition: int | None = None

    def name(self, suffix: str) -> str:
        """Any name of this partition: the prefix, the hash tag if there is one, the suffix."""
        if self.partition is None:
            return f"{self.prefix}:{suffix}"
        return f"{self.prefix}:{{{self.partition}}}:{suffix}"

    @property
    def deltas(self) -> str:
        """Input: streaming events, written by producers."""
        return self.name("deltas")

    @property
    def assembled(self) -> str:
        """Output: one `AssembledText` for each finished text."""
        return self.name("assembled")

    @property
    def alerts(self) -> str:
        """Output: `ModerationAlert`s."""
        return self.name("alerts")

    @property
    def dead_letters(self) -> str:
        """Entries that could not be handled, each with its reason."""
        return self.name("dead-letters")

    @property
    def undelivered(self) -> str:
        """Alerts that a destination did not get, each with the reason."""
        return self.name("undelivered")

    def item(self, stream_key: str, output_index: int) -> str:
        """The hash of a finished item: field `<kind>:<content_index>` holds the AssembledText's JSON.

        `stream_key` is the response id, or the item id where the producer gave no response id.
        """
        return self.name(f"item:{stream_key}:{output_index}")


@dataclass(frozen=True, slots=True)
class Partitions:
    """The names of all partitions under one prefix. Producers, workers and subscribers have to agree on it.

    Args:
        count: how many; 0, and the names are plain: one partition without braces.
        prefix: what all names begin with.

    Raises:
        ValueError: a negative count.
    """

    count: int = 0
    prefix: str = "deltaloom"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"{self.count} partitions: 0 (plain names), or how many there are")

    def of(self, response_id: str) -> StreamNames:
        """The names of the partition that takes a response; for events without one, of their item id."""
        if not self.count:
            return StreamNames(self.prefix)
        return StreamNames(self.prefix, partition_of(response_id, self.count))

    @property
    def all(self) -> tuple[StreamNames, ...]:
        """The names of every partition, in order: what a subscriber to all of them reads."""
        if not self.count:
            return (StreamNames(self.prefix),)
        return tuple(StreamNames(self.prefix, partition) for partition in range(self.count))
