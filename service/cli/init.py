"""`deltaloom init`: create the input streams with the workers' consumer group, before anything else runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaloom.streams import StreamNames
    from service.settings import Settings

EXAMPLES = examples("deltaloom init", "DELTALOOM_PARTITIONS=16 deltaloom init")


def run() -> None:
    """Create the input stream and the workers' group of each partition, unless they exist.

    Workers do this too. An autoscaler that reads the group's lag needs the group before the first worker
    starts. The command changes nothing that exists, so it can run before each deployment.
    """
    from deltaloom.streams import GROUP
    from service.cli.connect import read_settings
    from service.cli.output import console

    created, existing = asyncio.run(_init(read_settings()))
    for what, streams in (("created", created), ("exists", existing)):
        if streams:
            console().print(f"{what:<8} group {GROUP} on {_together(streams)}")


async def _init(settings: Settings) -> tuple[list[StreamNames], list[StreamNames]]:
    """Create the missing groups; return the partitions with a new group, and the others."""
    from service.cli.connect import connect
    from service.keys import Keys
    from service.storage.group import ConsumerGroup

    created: list[StreamNames] = []
    existing: list[StreamNames] = []
    async with connect(settings) as client:
        for names in settings.names.all:
            is_new = await ConsumerGroup(client, Keys(names), settings.consumer).ensure()
            (created if is_new else existing).append(names)
    return created, existing


def _together(partitions: Sequence[StreamNames]) -> str:
    """Return one name for the inputs of some partitions: `deltaloom:{0,1,2}:deltas`."""
    first = partitions[0]
    if first.partition is None:
        return first.deltas
    numbers = ",".join(str(names.partition) for names in partitions)
    return first.deltas.replace(f"{{{first.partition}}}", f"{{{numbers}}}", 1)
