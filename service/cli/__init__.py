"""The command `deltaloom`, composed of one module per sub-command.

Sub-commands import what they need when they run, so that `--help` is fast.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from service.cli import alerts, check, dead_letters, publish, relay, run, show, tail, worker
from service.cli.help_text import examples, prose

if TYPE_CHECKING:
    from collections.abc import Callable

_TRY = "Try it out"
_LOOK = "Look inside"
_OPERATE = "Operate"


class _Command(TyperGroup):
    """A command group that turns errors which a user can correct into one line and an exit code."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().make_context(*args, **extra)
        except Exception as error:
            _make_visible(error)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[:1] == ["demo"]:  # was a command until version 0.1
            ctx.fail("the demo is no longer in this program: run `make demo` in a clone of the repository")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        from service.cli.command_errors import explanation
        from service.cli.output import note

        try:
            return super().invoke(ctx)
        except Exception as error:
            explained = explanation(error)
            if explained is None and _is_typers(error):
                _make_visible(error)
                raise
            if explained is None:
                _show_traceback(error)
                raise typer.Exit(1) from error
            for line in explained.lines:
                note(line, style="red")
            raise typer.Exit(explained.exit_code) from error


def _is_typers(error: Exception) -> bool:
    """Return whether Typer handles an error itself, by an exit code or a message."""
    return isinstance(error, typer.Exit | typer.Abort | EOFError | OSError) or hasattr(
        error, "format_message"
    )


def _show_traceback(error: Exception) -> None:
    """Print a traceback without model texts and with invisible characters made visible."""
    from service.logs import traceback_of
    from service.visible import visible

    sys.stderr.write(f"{visible(traceback_of((type(error), error, error.__traceback__)), keep=chr(10))}\n")


def _make_visible(error: Exception) -> None:
    """Make the message of a Typer error visible, since it may repeat an argument that a stranger wrote."""
    from service.visible import visible

    message = getattr(error, "message", None)
    if isinstance(message, str):
        error.message = visible(message)  # type: ignore[attr-defined]


app = typer.Typer(
    cls=_Command,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # locals may contain model texts
    epilog=examples("deltaloom run", "deltaloom publish stream.jsonl", "deltaloom tail alerts"),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deltaloom {version('deltaloom-worker')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Rebuild finished texts and moderation alerts from streams of model-output deltas on Redis Streams."""


def _add(name: str, function: Callable[..., None], how: str, panel: str) -> None:
    app.command(name, help=prose(function), epilog=how, rich_help_panel=panel)(function)


_add("run", run.run, run.EXAMPLES, _TRY)
_add("publish", publish.run, publish.EXAMPLES, _TRY)
_add("tail", tail.run, tail.EXAMPLES, _LOOK)
_add("show", show.run, show.EXAMPLES, _LOOK)
app.add_typer(
    dead_letters.app,
    name="dead-letters",
    help="List, replay or drop entries that could not be handled.",
    epilog=dead_letters.EXAMPLES,
    rich_help_panel=_LOOK,
)
app.add_typer(
    alerts.app,
    name="alerts",
    help="Check, test and explain alerting, and resend undelivered alerts.",
    epilog=alerts.EXAMPLES,
    rich_help_panel=_LOOK,
)
_add("worker", worker.run, worker.EXAMPLES, _OPERATE)
_add("relay", relay.run, relay.EXAMPLES, _OPERATE)
_add("check", check.run, check.EXAMPLES, _OPERATE)


def main() -> None:
    """Run the command line."""
    from service.cli.output import escape_unknown_characters

    escape_unknown_characters()
    app()
