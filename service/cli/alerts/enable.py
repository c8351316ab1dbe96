"""`deltaloom alerts enable`: enable a destination that was disabled."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from service.cli.help_text import examples

EXAMPLES = examples("deltaloom alerts enable on-call")


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the destination.", show_default=False)],
) -> None:
    """Enable a destination that was disabled because it answered 410, Gone.

    Alerts that it missed are kept as undelivered: `deltaloom alerts resend --all --of NAME` sends them.
    """
    asyncio.run(_enable(name))


async def _enable(name: str) -> None:
    from service.cli.command_errors import CommandError
    from service.cli.connect import connect, read_settings
    from service.cli.output import console
    from service.storage.redis_outbox import RedisOutbox

    settings = read_settings()
    async with connect(settings) as client:
        enabled = await RedisOutbox(client, settings.names, name).enable()
    if not enabled:
        raise CommandError(f"{name} is not disabled")
    console().print(f"{name} is enabled: a relay sends to it again within seconds")
