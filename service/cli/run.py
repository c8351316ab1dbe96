"""`deltaloom run`: run a worker, with an embedded server if none is configured. Meant for a first try."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.alerts_file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded.embedded_server import EmbeddedServer
    from service.settings import Settings

EXAMPLES = examples("deltaloom run", "REDIS_URL=redis://localhost:6379 deltaloom run")

FOLDER = Path(".deltaloom")
_STREAM = Path(__file__).parents[2] / "demo" / "streams" / "storefront.jsonl"
"""Recorded stream of a refusal, for the suggested commands; only a clone has it."""


def run(
    folder: Annotated[
        Path, typer.Option(help="Folder of the embedded server's data.", file_okay=False)
    ] = FOLDER,
    config: ConfigFile = DEFAULT,
    console: Annotated[
        bool, typer.Option("--console", help="Serve the console too, on this machine only.")
    ] = False,
    process: Annotated[
        int | None, typer.Option(hidden=True, help="Be this one of them, for the process that started it.")
    ] = None,
) -> None:
    """Run a worker on REDIS_URL if that is set, else on an embedded server that keeps its data.

    The embedded server listens on this machine only, requires the password in its folder, and writes to disk
    every second. The next run has the same data, and the same address if that is free. If there is an
    alerts.toml, alerts are sent as it configures. DELTALOOM_PROCESSES and the other settings are as for
    `deltaloom worker`. Only a clone of the repository has the embedded server; the image needs REDIS_URL.
    """
    from service.cli.connect import read_settings
    from service.cli.console_beside import console_beside
    from service.cli.worker import check_alerts, work
    from service.settings import url_variable

    settings = read_settings()
    alerts = config if config.exists() or config != DEFAULT else None
    if process is not None:
        work(settings, alerts, process)
        return
    if alerts is not None:
        check_alerts(alerts)
    _stop_in_order()
    with ExitStack() as beside:
        origin, password = url_variable(), None
        if "redis_url" not in settings.model_fields_set:
            server = beside.enter_context(_embedded_server(folder))
            os.environ["REDIS_URL"] = server.url  # for all processes of this worker
            settings = read_settings()
            origin, password = f"embedded, its data in {folder}/", server.password_file
        page = beside.enter_context(console_beside()) if console else None
        _introduce(settings, origin, password, page)
        work(settings, alerts)


@contextmanager
def _embedded_server(folder: Path) -> Iterator[EmbeddedServer]:
    """Start an embedded server, and stop it at the end of the block.

    Raises:
        CommandError: this installation has no embedded server, or it cannot be started.
    """
    from service.cli.command_errors import CommandError

    try:
        from embedded import EmbeddedServerError
        from embedded.embedded_server import EmbeddedServer
    except ModuleNotFoundError:
        raise CommandError(
            "REDIS_URL is not set, and only a clone of the repository has the embedded server: "
            "set REDIS_URL=redis://host:6379, or run `make run` in a clone"
        ) from None
    try:
        with EmbeddedServer(folder) as server:
            yield server
    except EmbeddedServerError as error:
        raise CommandError(str(error)) from error


def _stop_in_order() -> None:
    """Exit cleanly on signals until the worker handles them, so that the embedded server is stopped too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(0))


def _introduce(settings: Settings, origin: str, password: Path | None, page: str | None) -> None:
    """Print the server's address and commands to try from another terminal.

    If `password` names the file with the server's password, the first command reads it. A password in
    REDIS_URL is not printed. `page` is the address of the console; None without one.
    """
    from rich.text import Text

    from service.cli.connect import address
    from service.cli.output import console

    where, call = address(settings.redis_url), own_command()
    commands = [f"{call} tail alerts", f"{call} tail assembled"]
    if _STREAM.exists():
        commands.append(f"{call} publish {_from_here(_STREAM)}")
    if password is not None:
        scheme, _, host = where.partition("://")
        # redis-cli 7.0 needs the name of the user.
        url = f'"{scheme}://default:$(cat {shlex.quote(_from_here(password))})@{host}"'
        commands.insert(0, " ".join((f"export REDIS_URL={url}", *_shared(settings))))
    start = "Try it from another terminal" + (", with the same settings:" if password is None else ":")
    target = console(stderr=True)
    lines = [
        Text.assemble(("server  ", "dim"), (where, "bold green"), (f"  ({origin})", "dim")),
        *([Text.assemble(("console ", "dim"), (page, "bold green"))] if page else []),
        Text(),
        Text(start, style="dim"),
        *(Text(f"  {command}", style="cyan") for command in commands),
        Text(),
        Text("Ctrl-C stops it.", style="dim"),
    ]
    for line in lines:
        target.print(line, soft_wrap=True)


def _shared(settings: Settings) -> list[str]:
    """Return environment assignments that other programs on these streams need, quoted for a shell."""
    from service.settings import variable

    names = [name for name in ("redis_mode", "prefix", "partitions") if name in settings.model_fields_set]
    return [f"{variable(name)}={shlex.quote(str(getattr(settings, name)))}" for name in names]


def own_command() -> str:
    """Return the command by which this program can be called again from the same folder."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{_from_here(Path(sys.executable))} -m service"
    found = shutil.which(program.name)
    if found and program.exists() and Path(found).samefile(program):
        return program.name
    return _from_here(program)


def _from_here(path: Path) -> str:
    absolute = path if path.is_absolute() else Path.cwd() / path
    relative = os.path.relpath(absolute)
    return str(absolute) if relative.startswith("..") else relative if os.sep in relative else f"./{relative}"
