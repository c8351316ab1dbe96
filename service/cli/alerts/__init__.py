"""`deltaloom alerts`: commands about alert routing and delivery, one module each."""

from __future__ import annotations

import typer

from service.cli.alerts import check_file as check
from service.cli.alerts import enable, explain, heartbeat, rates, resend, test, undelivered
from service.cli.help_text import examples, prose

EXAMPLES = examples(
    "deltaloom alerts check", "deltaloom alerts explain resp_42", "deltaloom alerts test on-call"
)

app = typer.Typer(
    help="Check, test and explain alerting, and resend undelivered alerts.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)
for name, command in (
    ("check", check),
    ("test", test),
    ("heartbeat", heartbeat),
    ("explain", explain),
    ("rates", rates),
    ("undelivered", undelivered),
    ("resend", resend),
    ("enable", enable),
):
    app.command(name, help=prose(command.run), epilog=command.EXAMPLES)(command.run)
