"""`deltaloom drain`: let all workers stop reading and finish what they have read, and report what is left."""

from __future__ import annotations

import asyncio
import json as json_format
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from rich.table import Table

    from service.settings import Settings
    from service.storage.draining import LeftOver

EXAMPLES = examples(
    "deltaloom drain",
    "deltaloom drain --all --timeout 600",
    "deltaloom drain --resume",
)

_INTERVAL: Final = 0.5
"""Minimum seconds between two looks."""
_PAUSE: Final = 4
"""Minimum pause between two looks, in multiples of the time that a look took: a large entry makes it long."""
_LAST_READ_WITHIN: Final = 2.5
"""Maximum seconds in which a worker's last read ends after the worker has seen the request."""

_MEANINGS: Final = {
    "unread": "entries that stay on the input",
    "pending": "entries that a worker has read and not finished",
    "open": "responses that have begun and not ended",
    "waiting": "responses whose texts wait for other entries",
    "alerts": "alerts that a relay has not delivered yet",
}


def run(
    everything: Annotated[
        bool, typer.Option("--all", help="First let the workers read all input; stop the producers before.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let the workers read again.")] = False,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Maximum seconds to wait.")] = 60.0,
    hold: Annotated[
        int,
        typer.Option(
            min=60, max=7 * 86400, metavar="SECONDS", help="Seconds after which the workers read again."
        ),
    ] = 3600,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let all workers stop reading and finish what they have read, and report what is left.

    The workers keep running, and read again after `deltaloom drain --resume`, or when the time of --hold is
    over. Nothing is lost meanwhile: producers can publish, and unread entries stay on the input. The exit
    code is 1 if the workers have not finished in time; the request then stays.
    """
    from service.cli.connect import read_settings

    settings = read_settings()
    if resume:
        asyncio.run(_resume(settings))
        return
    drained, left = asyncio.run(_drain(settings, everything=everything, timeout=timeout, hold=hold))
    _print(drained=drained, left=left, json=json)
    raise typer.Exit(0 if drained else 1)


async def _resume(settings: Settings) -> None:
    from service.cli.connect import connect
    from service.cli.output import console
    from service.storage.draining import DrainRequest

    async with connect(settings) as client:
        was_draining = await DrainRequest(client, settings.names.all[0]).withdraw()
    console().print(
        f"the workers read again within {settings.sweep_interval:g} s" if was_draining else "not draining"
    )


async def _drain(
    settings: Settings,
    *,
    everything: bool,
    timeout: float,  # noqa: ASYNC109 - reported, not raised
    hold: int,
) -> tuple[bool, LeftOver]:
    from service.cli.connect import connect
    from service.cli.output import note
    from service.storage.draining import DrainRequest

    give_up = time.monotonic() + timeout
    async with connect(settings) as client:
        if everything:
            done, left = await _wait(client, settings, _is_empty, give_up)
            if not done:
                return False, left
        until = (datetime.now(UTC) + timedelta(seconds=hold)).isoformat(timespec="seconds")
        await DrainRequest(client, settings.names.all[0]).make(hold, until)
        note(f"the workers stop reading, until `deltaloom drain --resume` or {until}")
        all_know = time.monotonic() + settings.sweep_interval + _LAST_READ_WITHIN
        return await _wait(client, settings, _is_drained, give_up, not_before=all_know)


def _is_empty(left: LeftOver) -> bool:
    return left.unread == 0 and not left.pending and not left.waiting


def _is_drained(left: LeftOver) -> bool:
    return not left.pending and not left.reading


async def _wait(
    client: Redis,
    settings: Settings,
    done: Callable[[LeftOver], bool],
    give_up: float,
    not_before: float = 0.0,
) -> tuple[bool, LeftOver]:
    """Wait until it is done, and print the progress; return whether it is, and what is left."""
    from service.cli.output import note
    from service.storage.draining import left_over

    shown = None
    while True:
        began = time.monotonic()
        left = await left_over(client, settings.names)
        now = time.monotonic()
        if now >= not_before and done(left):
            return True, left
        if now >= give_up:
            return False, left
        progress = (left.unread, left.pending, left.reading)
        if progress != shown:
            shown = progress
            unread = "?" if left.unread is None else f"{left.unread:,}"
            note(f"{unread} unread, {left.pending:,} pending, {left.reading} reading", style="dim")
        await asyncio.sleep(max(_INTERVAL, min(_PAUSE * (now - began), give_up - now)))


def _print(*, drained: bool, left: LeftOver, json: bool) -> None:
    from service.cli.output import console, note, plural, print_table, write_json

    if json:
        write_json(json_format.dumps({"drained": drained, **left._asdict()}))
        return
    print_table(console(), _table(left))
    if not drained:
        reading = f", {plural(left.reading, 'worker')} still reading" if left.reading else ""
        note(f"not drained in time: {left.pending:,} pending{reading}", style="red")


def _table(left: LeftOver) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    for name, meaning in _MEANINGS.items():
        number = getattr(left, name)
        table.add_row(name, "unknown" if number is None else f"{number:,}", meaning)
    return table
