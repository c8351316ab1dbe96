"""`deltaloom worker`: run a worker in the foreground, in one or several processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.alerts_file import DEFAULT, ConfigFile
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
    """Run a worker until SIGTERM or Ctrl-C. Start as many as you like. SIGHUP reloads its files.

    Settings come from the environment: REDIS_URL, and DELTALOOM_… (docs/settings.md lists them). If the
    server is unavailable, the worker waits for it. Among workers with a relay, one sends to a destination at
    a time.
    """
    from service.cli.process_wide import lean_imports

    with lean_imports():
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
    from service.apps.handler_table import routing_table
    from service.cli.log_level import configure_logs, reload_log_level
    from service.cli.measuring import metrics_of_siblings
    from service.observability.siblings import observing_siblings
    from service.supervisor import LEAVING, Supervisor

    routing_table(settings)
    if alerts is not None:
        check_alerts(alerts)
    configure_logs(settings)

    def command(number: int) -> tuple[str, ...]:
        return (sys.executable, *sys.orig_argv[1:], "--process", str(number))

    supervisor = Supervisor(
        settings.processes,
        command,
        settings.shutdown_timeout + LEAVING,
        reload=lambda: reload_log_level(settings),
    )

    async def supervise() -> int:
        async with observing_siblings(settings) as siblings:
            siblings.routes.update(metrics_of_siblings(settings, siblings.from_each))
            return await supervisor.run()

    return asyncio.run(supervise())


def _work_as(number: int, settings: Settings, alerts: Path | None) -> None:
    """Run as one of several processes, with its own consumer name and its number in every log line."""
    from service import logs

    if "consumer" in settings.model_fields_set:
        settings = settings.model_copy(update={"consumer": f"{settings.consumer}-{number}"})
    with logs.bound(process=number):
        _work(settings, alerts, number)


def _work(settings: Settings, alerts: Path | None, number: int | None = None) -> None:
    """Run a worker in this process; report wrong configuration before it starts.

    If it has a number among several processes, stop when the parent process ends.
    """
    from service.cli.process_wide import lean_imports, run_in_loop

    with lean_imports():
        import service.apps.worker_app  # noqa: F401 - imports most of what a worker needs
        from service.cli.log_level import configure_logs

    if alerts is not None:
        check_alerts(alerts)
    configure_logs(settings)
    run_in_loop(_until_stopped(settings, alerts, number))


def check_alerts(file: Path) -> None:
    """Check a file of alerts before anything starts.

    Raises:
        ConfigError: the file has mistakes.
    """
    from service.alerts.deciding.policy import load

    load(file, os.environ)


async def _until_stopped(settings: Settings, alerts: Path | None, number: int | None) -> None:
    """Run a worker until a signal, a closed terminal, the end of its supervisor, or a failure.

    Raises:
        BaseException: the failure; it has the exit code that `command_errors.py` gives it.
    """
    from service.apps.worker_app import WorkerApp
    from service.cli.exporting import exporting_traces
    from service.cli.log_level import reload_log_level
    from service.cli.measuring import metrics_of
    from service.cli.process_wide import collect_garbage_rarely, on_hangup, stop_on_signals
    from service.observability.observation import observing
    from service.ports.instruments import RELAY_OFF
    from service.supervisor import when_parent_is_gone

    metrics = metrics_of(settings)
    async with contextlib.AsyncExitStack() as beside:
        traces = await beside.enter_async_context(exporting_traces(settings, "deltaloom-worker", metrics))
        worker = WorkerApp(settings, None if metrics is None else metrics.of_worker(), traces.spans)
        stop_on_signals(worker.stop)
        if number is not None:
            when_parent_is_gone(worker.stop)  # no second signal, if the supervisor has just sent the first
        reloads = [lambda: reload_log_level(settings)]
        observation = await beside.enter_async_context(observing(settings, number))
        observation.parts |= {"worker": worker, **traces.parts}
        if metrics is not None:
            observation.routes.update(metrics.routes)
        if alerts is None:
            on_hangup(*reloads)
        else:
            from service.apps.relay_app import relaying  # a worker alone needs none of it

            relays = await beside.enter_async_context(
                relaying(
                    settings,
                    alerts,
                    os.environ,
                    RELAY_OFF if metrics is None else metrics.of_relay(),
                    traces.spans,
                )
            )
            observation.parts["relay"] = relays
            on_hangup(*reloads, relays.reload)
            relays.start()
        await worker.start()
        collect_garbage_rarely()
        worker.when_stopping(observation.stopping)
        reason = await worker.serve()
    if reason.error is not None:
        raise reason.error
