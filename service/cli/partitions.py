"""Convert between entry ids and the ids that the command shows if there are several partitions.

An entry id is unique only within its stream. With partitions, the command therefore prints and accepts
`3:1763764863123-0`: the partition, and the entry id in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cli.command_errors import CommandError

if TYPE_CHECKING:
    from deltaloom.streams import Partitions, StreamNames
    from service.settings import Settings

SEPARATOR = ":"


def qualified(names: StreamNames, entry_id: str) -> str:
    """Return the shown id of an entry: with its partition in front, if there are partitions."""
    return entry_id if names.partition is None else f"{names.partition}{SEPARATOR}{entry_id}"


def located(partitions: Partitions, shown_id: str) -> tuple[StreamNames, str]:
    """Return the partition and entry id of a shown id.

    Raises:
        CommandError: the partition is missing, unexpected, or does not exist.
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
    """Return a name for the streams of all partitions: `deltaloom:alerts`, or `deltaloom:{0-15}:alerts`."""
    first, *others = settings.names.all
    return f"{settings.prefix}:{{0-{len(others)}}}:{suffix}" if others else first.name(suffix)
