"""`deltaloom alerts enable`: a destination that said it is no more is there again."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from service.cli.help_text import examples

EXAMPLES = examples("deltaloom alerts enable on-call")


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the destination.", show_default=False)],
) -> None:
    """Send to a destination again that was disabled because it answered 410, Gone.

    What it did not get meanwhile is among the undelivered: `deltaloom alerts resend --all --of NAME`.
    """
    asyncio.run(_enable(name))


async def _enable(name: str) -> None:
    from service.cli.connection import connect, read_settings
    from service.cli.errors import CommandError
    from service.cli.output import console
    from service.storage.outbox import RedisOutbox

    settings = read_settings()
    async with connect(settings) as client:
        enabled = await RedisOutbox(client, settings.names, name).enable()
    if not enabled:
        raise CommandError(f"{name} is not disabled")
    console().print(f"{name} is enabled: a relay sends to it again within seconds")
