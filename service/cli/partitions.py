"""How the command names what is in several partitions.

An entry's id says which one it is only within its stream. Where there are partitions, the command therefore
writes and takes `3:1763764863123-0`: the partition, and the id in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cli.errors import CommandError

if TYPE_CHECKING:
    from deltaloom.streams import Partitions, StreamNames
    from service.settings import Settings

SEPARATOR = ":"


def qualified(names: StreamNames, entry_id: str) -> str:
    """An entry's id as it is shown: with its partition before it, if there is one."""
    return entry_id if names.partition is None else f"{names.partition}{SEPARATOR}{entry_id}"


def located(partitions: Partitions, shown_id: str) -> tuple[StreamNames, str]:
    """The partition and the id in it that were shown so.

    Raises:
        CommandError: a partition is named and there are none, or none and there are, or it is not there.
    """
    number, separator, entry_id = shown_id.rpartition(SEPARATOR)
    if bool(separator) != bool(partitions.count):
        expected = "like 3:1763764863123-0, as DELTALOOM_PARTITIONS is set" if partitions.count else "without"
        raise CommandError(f"{shown_id}: an id is written {expected} its partition before it")
    if not separator:
        return partitions.all[0], entry_id
    if int(number) >= partitions.count:
        raise CommandError(f"{shown_id}: partitions are 0 to {partitions.count - 1}")
    return partitions.all[int(number)], entry_id


def together(settings: Settings, suffix: str) -> str:
    """The streams of all partitions in one name: `deltaloom:alerts`, or `deltaloom:{0-15}:alerts`."""
    first, *others = settings.names.all
    return f"{settings.prefix}:{{0-{len(others)}}}:{suffix}" if others else first.name(suffix)
