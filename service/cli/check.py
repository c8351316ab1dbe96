"""`deltaloom check`: check the server and the installation. Also the health check of the image."""

from __future__ import annotations

import asyncio
import json as json_format
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from rich.table import Table

    from service.storage.client.server import ServerFinding

EXAMPLES = examples(
    "deltaloom check",
    "deltaloom check --read-only",
    "deltaloom check --read-only --strict",
    "REDIS_URL=rediss://user@host:6379 deltaloom check --json",
)

_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "bold yellow"), "fail": ("FAIL", "bold red")}


def run(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Do not try the worker's commands, for a user without the right to write."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 also for a warning, for scripts.")
    ] = False,
) -> None:
    """Check the server and this installation. The exit code is 1 if a worker could not work, else 0."""
    from service.cli.connect import read_settings
    from service.cli.finding_table import found
    from service.cli.output import console, print_table, write_json

    findings = asyncio.run(found(read_settings(), read_only=read_only))
    bad = ("warn", "fail") if strict else ("fail",)
    failed = any(finding.state in bad for finding in findings)
    if json:
        checks = [finding._asdict() for finding in findings]
        write_json(json_format.dumps({"ok": not failed, "checks": checks}, ensure_ascii=False))
    else:
        print_table(console(), _table(findings))
    raise typer.Exit(int(failed))


def _table(findings: list[ServerFinding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from service.visible import visible

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for finding in findings:
        table.add_row(Text(*_MARKS[finding.state]), finding.what, Text(visible(finding.says)))
    return table
