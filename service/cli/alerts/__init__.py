"""`deltaloom alerts`: what alerts whom, and what became of it. One file a sub-command, put together here."""

from __future__ import annotations

import typer

from service.cli.alerts import check, explain, rates
from service.cli.help_text import examples, prose

EXAMPLES = examples("deltaloom alerts check", "deltaloom alerts explain resp_42")

app = typer.Typer(no_args_is_help=True)
app.command("check", help=prose(check.run), epilog=check.EXAMPLES)(check.run)
app.command("explain", help=prose(explain.run), epilog=explain.EXAMPLES)(explain.run)
app.command("rates", help=prose(rates.run), epilog=rates.EXAMPLES)(rates.run)
