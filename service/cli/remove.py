"""`deltaloom remove`: remove all keys of a deployment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from service.storage.removal import Removal

EXAMPLES = examples(
    "deltaloom remove --prefix old --dry-run",
    "deltaloom remove --prefix old --yes",
)

ALIVE_MS = 30_000
"""Milliseconds within which a running worker has read."""


def run(
    prefix: Annotated[
        str, typer.Option(metavar="NAME", help="Prefix of the deployment.", show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the keys, by kind.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove even while workers or relays run.")] = False,
) -> None:
    """Remove all keys of a deployment: streams, unread input, texts, state. There is no way back.

    It asks for the prefix again. It refuses while a worker has read within 30 seconds, or a relay holds a
    lease. Keys of other prefixes stay. It needs a Redis user that may SCAN and UNLINK, such as `default`.
    """
    asyncio.run(_remove(prefix, dry_run=dry_run, yes=yes, force=force))


async def _remove(prefix: str, *, dry_run: bool, yes: bool, force: bool) -> None:
    from service.cli.command_errors import CommandError
    from service.cli.connect import connect, read_settings
    from service.cli.output import console, note, plural
    from service.storage.removal import Removal

    async with connect(read_settings(prefix=prefix)) as client:
        removal = Removal(client, prefix)
        counted = await removal.count()
        for kind, number in sorted(counted.items()):
            console().print(f"{number:>10,}  {kind}")
        if dry_run or not counted:
            console().print(f"{plural(counted.total(), 'key')} of {prefix}")
            return
        if not force and (running := await _running(client, removal)):
            raise CommandError(f"{', '.join(running)} still at work: stop them first, or add --force")
        if not yes:
            note(f"this removes {plural(counted.total(), 'key')}, unread input too; there is no way back")
            if typer.prompt("type the prefix to go on") != prefix:
                raise CommandError("that is not the prefix: nothing was removed")
        console().print(f"{plural(await removal.remove(), 'key')} of {prefix} removed")


async def _running(client: Redis, removal: Removal) -> list[str]:
    """Return the workers and relays that are at work."""
    from redis.exceptions import ResponseError

    from deltaloom.streams import GROUP
    from service.visible import visible

    running: set[str] = set()
    for stream in await removal.streams("deltas"):
        try:
            consumers = await client.xinfo_consumers(stream, GROUP)
        except ResponseError:  # there is no such group
            continue
        running |= {
            f"worker {visible(each['name'].decode(errors='replace'))}"
            for each in consumers
            if each["idle"] < ALIVE_MS
        }
    return sorted(running) + [f"relay to {visible(each.split(':')[-2])}" for each in await removal.leases()]
