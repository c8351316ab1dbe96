"""`deltaloom worker`: run a worker in the foreground, in one or several processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.alerts.file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.settings import Settings

EXAMPLES = examples(
    "REDIS_URL=redis://redis:6379 deltaloom worker",
    "DELTALOOM_HANDLERS=refusal,lifecycle DELTALOOM_LOG_FORMAT=json deltaloom worker",
    "deltaloom worker --processes 4",
    "DELTALOOM_PARTITIONS=16 deltaloom worker --partitions 0-7",
    "deltaloom worker --with-relay",
)


def run(
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Run N worker processes, and restart those that end.",
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
    with_relay: Annotated[
        bool, typer.Option("--with-relay", help="Send alerts too, as `deltaloom relay` does.")
    ] = False,
    config: ConfigFile = DEFAULT,
    process: Annotated[
        int | None, typer.Option(hidden=True, help="Be this one of them, for the process that started it.")
    ] = None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C. Start as many as you like.

    Settings come from the environment: REDIS_URL, and DELTALOOM_… (docs/settings.md lists them). If the
    server is unavailable, the worker waits for it. Among workers with a relay, one sends to a destination at
    a time.
    """
    from service.cli.connect import read_settings

    given = {"processes": processes, "serve_partitions": partitions}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    work(settings, config if with_relay else None, process)


def work(settings: Settings, alerts: Path | None = None, process: int | None = None) -> None:
    """Run a worker, in as many processes as the settings say, until it is stopped.

    Args:
        settings: settings of the worker.
        alerts: alerts file for a relay in the same process; None for no relay.
        process: number of this process among several; None if it is the only one, or starts the others.
    """
    if process is not None:
        _work_as(process, settings, alerts)
    elif settings.processes > 1:
        raise typer.Exit(_supervise(settings, alerts))
    else:
        _work(settings, alerts)


def _supervise(settings: Settings, alerts: Path | None) -> int:
    """Run several processes of this command, and return the exit code. Report wrong settings once, here."""
    from service import logs
    from service.apps.worker_app import routing_table
    from service.supervisor import LEAVING, Supervisor

    routing_table(settings)
    if alerts is not None:
        check_alerts(alerts)
    logs.configure(settings)

    def command(number: int) -> tuple[str, ...]:
        return (sys.executable, *sys.orig_argv[1:], "--process", str(number))

    supervisor = Supervisor(
        settings.processes, command, settings.shutdown_timeout + LEAVING, reloads=alerts is not None
    )
    return asyncio.run(supervisor.run())


def _work_as(number: int, settings: Settings, alerts: Path | None) -> None:
    """Run as one of several processes, with its own consumer name and its number in every log line."""
    from service import logs

    if "consumer" in settings.model_fields_set:
        settings = settings.model_copy(update={"consumer": f"{settings.consumer}-{number}"})
    with logs.bound(process=number):
        _work(settings, alerts, supervised=True)


def _work(settings: Settings, alerts: Path | None, *, supervised: bool = False) -> None:
    """Run a worker in this process; report wrong configuration before it starts.

    If `supervised`, stop when the parent process ends.
    """
    from service import logs
    from service.apps.worker_app import routing_table
    from service.cli.process_wide import run_in_loop

    routing_table(settings)
    if alerts is not None:
        check_alerts(alerts)
    logs.configure(settings)
    run_in_loop(_until_stopped(settings, alerts, supervised=supervised))


def check_alerts(file: Path) -> None:
    """Check a file of alerts before anything starts.

    Raises:
        ConfigError: the file has mistakes.
    """
    from service.alerts.deciding.policy import load

    load(file, os.environ)


async def _until_stopped(settings: Settings, alerts: Path | None, *, supervised: bool) -> None:
    """Run a worker until a signal, a closed terminal, the end of its supervisor, or a failure.

    Raises:
        BaseException: the failure; it has the exit code that `command_errors.py` gives it.
    """
    from service.apps.relay_app import relaying
    from service.apps.worker_app import WorkerApp
    from service.cli.process_wide import collect_garbage_rarely, on_hangup, stop_on_signals
    from service.supervisor import when_parent_is_gone

    worker = WorkerApp(settings)
    stop_on_signals(worker.stop)
    if supervised:
        when_parent_is_gone(worker.stop)  # no second signal, if the supervisor has just sent the first
    async with contextlib.AsyncExitStack() as beside:
        if alerts is None:
            on_hangup(None)
        else:
            relays = await beside.enter_async_context(relaying(settings, alerts, os.environ))
            on_hangup(relays.reload)
            relays.start()
        await worker.start()
        collect_garbage_rarely()
        reason = await worker.serve()
    if reason.error is not None:
        raise reason.error
