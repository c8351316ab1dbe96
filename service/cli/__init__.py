"""The command `deltaloom`, composed of one module per sub-command.

A sub-command is imported when it is named, and imports what it needs when it runs. So `--help` is fast, and a
worker has no other sub-command in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from service.cli.encoding import escape_unknown_characters
from service.cli.help_text import examples, prose

_TRY = "Try it out"
_LOOK = "Look inside"
_OPERATE = "Operate"
_MARKUP: Final = "rich"

_PANELS = {
    "run": _TRY,
    "publish": _TRY,
    "tail": _LOOK,
    "show": _LOOK,
    "search": _LOOK,
    "export": _LOOK,
    "dead-letters": _LOOK,
    "alerts": _LOOK,
    "init": _OPERATE,
    "worker": _OPERATE,
    "relay": _OPERATE,
    "tap": _OPERATE,
    "archive": _OPERATE,
    "console": _OPERATE,
    "check": _OPERATE,
    "drain": _OPERATE,
    "health": _OPERATE,
    "metrics": _OPERATE,
    "remove": _OPERATE,
}
"""Panel of the help by sub-command. The module of a sub-command has the same name, except those below."""

_MODULES = {"health": "heartbeats"}
"""Modules by sub-command, where another module of the program has its name."""

_PROGRAMS = {
    "archive": "archive.archive_command",
    "console": "console.console_command",
    "export": "archive.export_command",
    "search": "archive.search_command",
    "tap": "tap.tap_command",
}
"""Modules of programs beside the service. They import the service, so it knows them by name only."""


class _Commands(Mapping[str, Any]):
    """The sub-commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return _imported(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_PANELS)

    def __len__(self) -> int:
        return len(_PANELS)


@cache
def _imported(name: str) -> Any:
    """Import a sub-command, or a group of them; raise `KeyError` for an unknown name."""
    panel = _PANELS[name]
    inside = f"{__name__}.{_MODULES.get(name, name.replace('-', '_'))}"
    module = import_module(_PROGRAMS.get(name, inside))
    alone = typer.Typer(rich_markup_mode=_MARKUP)
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=name, rich_help_panel=panel)
    else:
        how = {"help": prose(module.run), "epilog": module.EXAMPLES, "rich_help_panel": panel}
        alone.command(name, **how)(module.run)
    return get_group(alone).commands[name]


class _Command(TyperGroup):
    """A command group that turns errors which a user can correct into one line and an exit code."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.commands = _Commands()  # type: ignore[assignment] # it is only read

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
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            from service.cli.command_errors import explanation
            from service.cli.output import note

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
    return isinstance(error, EOFError | OSError) or hasattr(error, "format_message")


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
    rich_markup_mode=_MARKUP,
    pretty_exceptions_show_locals=False,  # locals may contain model texts
    epilog=examples("deltaloom run", "deltaloom publish stream.jsonl", "deltaloom tail alerts"),
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"deltaloom {version('deltaloom-worker')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Rebuild finished texts and moderation alerts from streams of model-output deltas on Redis Streams."""


def main() -> None:
    """Run the command line."""
    escape_unknown_characters()
    app()
