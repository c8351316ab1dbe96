"""The batch to which the replies of reads are added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from handlers.core.identity import EntryId
from service.storage.client.read_plan import bytes_of_entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.ports.storage import RawEntry


class Collector(Protocol):
    """An object that receives the entries of a batch."""

    def extend(self, entries: Sequence[RawEntry], /) -> None:
        """Add entries. Their ids are ascending, and above those of all entries added before."""
        ...


CollectorT = TypeVar("CollectorT", bound=Collector)


@dataclass(slots=True)
class ReadBatch(Generic[CollectorT]):
    """A batch that grows with each reply.

    It passes the entries to `collected`, and itself keeps only their number, size and last id.
    """

    collected: CollectorT
    """Object that has received the entries."""
    entry_bytes: int
    """Approximate bytes of an entry in the latest reply; before the first reply, the value of the previous
    batch."""
    entry_count: int = 0
    last_id: bytes = b"0-0"

    def add(self, entries: Sequence[RawEntry]) -> None:
        """Add the entries of a reply (at least one), but only those with ids above all ids of the batch.

        If the group is recreated between two replies, it begins again at the start of the stream. A batch
        has its entries in order and without repeats, so entries with lower ids are skipped. They stay pending
        and are claimed later.
        """
        if _parsed(entries[0][0]) <= _parsed(self.last_id):
            entries = [entry for entry in entries if _parsed(entry[0]) > _parsed(self.last_id)]
        if entries:
            self.collected.extend(entries)
            self.entry_count += len(entries)
            self.last_id, self.entry_bytes = entries[-1][0], bytes_of_entry(entries)


def _parsed(entry_id: bytes) -> EntryId:
    return EntryId.parse(entry_id.decode())
