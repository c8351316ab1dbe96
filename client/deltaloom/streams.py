"""Name the public streams and keys, and compute the partition of a response.

A producer for 16 partitions writes the events of `resp_42` to `Partitions(16).of("resp_42").deltas`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

GROUP = "deltaloom"
"""Name of the workers' consumer group on the input stream."""


def partition_of(response_id: str, partitions: int) -> int:
    """Return the partition, 0 … partitions-1, of all events of a response.

    It is the CRC-32 (as in zlib) of the id's UTF-8 bytes, modulo `partitions`: every language can compute it.
    For events without a response id, pass the item id.
    """
    return zlib.crc32(response_id.encode()) % partitions


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The public names under one prefix, for one partition if there are several.

    With a partition, each name has a Redis Cluster hash tag (`deltaloom:{3}:deltas`), so that all keys of a
    partition share a slot. Without one (None), names have no braces.
    """

    prefix: str = "deltaloom"
    partition: int | None = None

    def name(self, suffix: str) -> str:
        """Return a name of this partition: prefix, hash tag (if there is a partition) and suffix."""
        if self.partition is None:
            return f"{self.prefix}:{suffix}"
        return f"{self.prefix}:{{{self.partition}}}:{suffix}"

    @property
    def deltas(self) -> str:
        """Input stream: streaming events, written by producers."""
        return self.name("deltas")

    @property
    def assembled(self) -> str:
        """Output stream: one `AssembledText` for each finished text."""
        return self.name("assembled")

    @property
    def alerts(self) -> str:
        """Output stream: `ModerationAlert`s."""
        return self.name("alerts")

    @property
    def deliveries(self) -> str:
        """Output stream: one `Delivery` for each end of an alert at a destination."""
        return self.name("deliveries")

    @property
    def dead_letters(self) -> str:
        """Stream of the entries that could not be handled, each with its reason."""
        return self.name("dead-letters")

    @property
    def undelivered(self) -> str:
        """Stream of the alerts that a destination did not get, each with the reason."""
        return self.name("undelivered")

    def item(self, stream_key: str, output_index: int) -> str:
        """Return the key of a finished item's hash.

        Its field `<kind>:<content_index>` has the AssembledText's JSON.

        `stream_key` is the response id, or the item id if the producer gave no response id.
        """
        return self.name(f"item:{stream_key}:{output_index}")


@dataclass(frozen=True, slots=True)
class Partitions:
    """The names of all partitions under one prefix.

    Producers, workers and subscribers must use the same count and prefix.

    Args:
        count: number of partitions; 0 means one partition, with plain names without braces.
        prefix: first part of all names.

    Raises:
        ValueError: the count is negative.
    """

    count: int = 0
    prefix: str = "deltaloom"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"{self.count} partitions: use 0 for plain names, or a positive number")

    def of(self, response_id: str) -> StreamNames:
        """Return the names of a response's partition. For events without a response id, pass the item id."""
        if not self.count:
            return StreamNames(self.prefix)
        return StreamNames(self.prefix, partition_of(response_id, self.count))

    @property
    def all(self) -> tuple[StreamNames, ...]:
        """Names of all partitions, in order, for a subscriber to all of them."""
        if not self.count:
            return (StreamNames(self.prefix),)
        return tuple(StreamNames(self.prefix, partition) for partition in range(self.count))
