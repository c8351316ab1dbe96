"""The names of the public streams and keys, and how a producer picks a partition."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

GROUP = "deltaloom"
"""The worker's consumer group on the input stream."""


def partition_of(response_id: str, partitions: int) -> int:
    """The partition, 0 … partitions-1, that takes all events of one response.

    CRC-32 as in zlib over the UTF-8 bytes, so that every language can compute it.
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

    def item(self, stream_key: str, output_index: int) -> str:
        """The hash of a finished item: field `<kind>:<content_index>` holds the AssembledText's JSON.

        `stream_key` is the response id, or the item id where the producer gave no response id.
        """
        return self.name(f"item:{stream_key}:{output_index}")
