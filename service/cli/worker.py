"""`deltaloom worker`: run a worker in the foreground, or several processes of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.settings import Settings

EXAMPLES = examples(
    "REDIS_URL=redis://redis:6379 deltaloom worker",
    "DELTALOOM_HANDLERS=refusal,lifecycle DELTALOOM_LOG_FORMAT=json deltaloom worker",
    "deltaloom worker --processes 4",
    "DELTALOOM_PARTITIONS=16 deltaloom worker --partitions 0-7",
)


def run(
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Run N of them, each in a process of its own, and start again what ends.",
            show_default="DELTALOOM_PROCESSES, or 1",
        ),
    ] = None,
    partitions: Annotated[
        str | None,
        typer.Option(
            metavar="0-3|0,2,5-7",
            help="Serve only these of the DELTALOOM_PARTITIONS.",
            show_default="DELTALOOM_SERVE_PARTITIONS, or all",
        ),
    ] = None,
    process: Annotated[
        int | None, typer.Option(hidden=True, help="Be this one of them, for the process that started it.")
    ] = None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C. Start as many as you like.

    Settings come from the environment: REDIS_URL, and DELTALOOM_… (the README lists them). If the server is
    away, the worker waits for it.
    """
    from service.cli.connection import read_settings

    given = {"processes": processes, "serve_partitions": partitions}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    if process is not None:
        _work_as(process, settings)
    elif settings.processes > 1:
        raise typer.Exit(_supervise(settings))
    else:
        work(settings)


def _supervise(settings: Settings) -> int:
    """Run several processes of this very command; its exit code. A wrong setting is told once, here."""
    from service import logs
    from service.app import routing_table
    from service.supervisor import LEAVING, Supervisor

    routing_table(settings)
    logs.configure(settings)

    def command(number: int) -> tuple[str, ...]:
        return (sys.executable, *sys.orig_argv[1:], "--process", str(number))

    supervisor = Supervisor(settings.processes, command, settings.shutdown_timeout + LEAVING)
    return asyncio.run(supervisor.run())


def _work_as(number: int, settings: Settings) -> None:
    """Be one of several: with a name of its own in the group, and its number in every line that it logs."""
    from service import logs

    if "consumer" in settings.model_fields_set:
        settings = settings.model_copy(update={"consumer": f"{settings.consumer}-{number}"})
    with logs.bound(process=number):
        work(settings, supervised=True)


def work(settings: Settings, *, supervised: bool = False) -> None:
    """Run a worker in this process until it is told to stop; a wrong setting is told before it starts."""
    from service import logs
    from service.app import routing_table

    routing_table(settings)
    logs.configure(settings)
    try:
        import uvloop
    except ImportError:  # it is not there on Windows
        asyncio.run(_until_told(settings, supervised=supervised))
    else:
        uvloop.run(_until_told(settings, supervised=supervised))


async def _until_told(settings: Settings, *, supervised: bool) -> None:
    """Run a worker. A closed terminal, and the end of its supervisor, tell it to stop as SIGTERM does."""
    from service.app import run_worker
    from service.supervisor import when_parent_is_gone

    if sys.platform != "win32":
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, signal.raise_signal, signal.SIGTERM)
    if supervised:
        when_parent_is_gone(lambda: signal.raise_signal(signal.SIGTERM))
    await run_worker(settings)
