"""`deltaloom alerts undelivered`: list alerts that a destination did not get, and why."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from rich.table import Table

    from service.ports.deployment_figures import BacklogFigures
    from service.storage.undelivered_store import StoredUndelivered

EXAMPLES = examples(
    "deltaloom alerts undelivered",
    "deltaloom alerts undelivered --to on-call --json",
)


def run(
    to: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only alerts of this destination.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most the newest N.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List alerts that a destination did not get, the newest first, each with the last answer.

    `deltaloom alerts resend` sends them again.
    """
    asyncio.run(_list(to, limit, as_json=json))


async def _list(to: str | None, limit: int, *, as_json: bool) -> None:
    from service.cli.alerts.all_undelivered import connect_undelivered
    from service.cli.output import console, plural, print_table, write_json

    async with connect_undelivered() as alerts:
        total = await alerts.count()
        chosen = await alerts.newest(limit, to)
        backlogs = {} if as_json or total else await alerts.backlogs(to)
    if as_json:
        for stored in chosen:
            write_json(_json(stored))
        return
    target = console()
    if chosen:
        print_table(target, _table(chosen))
    whose = f" of {to}" if to else ""
    target.print(
        f"{len(chosen):,} of {plural(total, 'undelivered alert')}{whose}" if total else _none(backlogs)
    )


def _none(backlogs: dict[str, BacklogFigures]) -> str:
    """Return what an empty list means: an alert that is still retried is not in it."""
    from service.cli.relay_findings import waiting

    waits = "; ".join(waiting(name, each) for name, each in backlogs.items() if each.alerts)
    return f"none was given up; {waits}" if waits else "all were delivered"


def _json(stored: StoredUndelivered) -> str:
    import json

    fields = stored.undelivered.model_dump(mode="json", exclude={"alert"})
    alert: object = stored.undelivered.alert
    with suppress(ValueError, RecursionError):  # an unreadable alert may not be JSON; show it unchanged
        alert = alert and json.loads(str(alert))
    return json.dumps({"id": stored.id, **fields, "alert": alert}, ensure_ascii=False)


def _table(chosen: list[StoredUndelivered]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from service.visible import visible

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, style in (("id", ""), ("failed", ""), ("destination", ""), ("reason", "red")):
        table.add_column(name, no_wrap=True, style=style)
    table.add_column("attempts", justify="right")
    table.add_column("answer")
    for stored in chosen:
        undelivered = stored.undelivered
        failed = undelivered.failed_at.astimezone().strftime("%m-%d %H:%M")
        answer = Text(visible(undelivered.answer))
        table.add_row(
            stored.id,
            failed,
            visible(undelivered.destination),
            visible(undelivered.reason),
            str(undelivered.attempts),
            answer,
        )
    return table
