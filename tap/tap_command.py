"""`deltaloom tap`: run the proxy in the foreground, in one or several processes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from tap.tap_settings import TapSettings
    from tap.upstreams import Upstreams

EXAMPLES = examples(
    "DELTALOOM_TAP_UPSTREAMS=upstreams.toml deltaloom tap",
    "DELTALOOM_TAP_LISTEN=0.0.0.0:8787 REDIS_URL=redis://redis:6379 deltaloom tap --processes 2",
)

_OTHER_FILES = 200
"""Open files other than those of connections: logs, Redis, the copier."""

_ENDING = 20.0
"""Maximum seconds for a process, after its streams have ended, to publish what is left and to end."""


def run(
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Run N processes at the same port, and restart those that end.",
            show_default="DELTALOOM_PROCESSES, or 1",
        ),
    ] = None,
    process: Annotated[
        int | None, typer.Option(hidden=True, help="Number of this process, which its supervisor gives.")
    ] = None,
) -> None:
    """Run a proxy in front of model providers that publishes a copy of their answers, until SIGTERM.

    Bytes pass unchanged, and never wait for the copy, even if Redis is away. Settings come from the
    environment: REDIS_URL, and DELTALOOM_TAP_… (docs/tap.md lists them).
    """
    from service.cli.process_wide import lean_imports, run_in_loop

    with lean_imports():
        from service.cli.log_level import configure_logs
        from tap.tap_settings import TapSettings
        from tap.upstreams import load

    settings = TapSettings.read(**({} if processes is None else {"processes": processes}))
    upstreams = load(settings.tap_upstreams)
    configure_logs(settings)
    if process is None and settings.processes > 1:
        raise typer.Exit(_supervise(settings))
    run_in_loop(_until_stopped(settings, upstreams, process))


def _supervise(settings: TapSettings) -> int:
    """Run several processes of this command, and return the exit code."""
    from service.cli.measuring import metrics_of_siblings
    from service.observability.siblings import observing_siblings
    from service.supervisor import Supervisor

    def command(number: int) -> tuple[str, ...]:
        return (sys.executable, *sys.orig_argv[1:], "--process", str(number))

    supervisor = Supervisor(settings.processes, command, settings.tap_shutdown_timeout + _ENDING)

    async def supervise() -> int:
        async with observing_siblings(settings) as siblings:
            siblings.routes.update(metrics_of_siblings(settings, siblings.from_each))
            return await supervisor.run()

    return asyncio.run(supervise())


async def _until_stopped(settings: TapSettings, upstreams: Upstreams, number: int | None) -> None:
    """Run a tap until a signal, or the end of its supervisor."""
    from service import logs
    from service.cli.measuring import metrics_of
    from service.cli.process_wide import allow_open_files, collect_garbage_rarely, stop_on_signals
    from service.observability.observation import observing
    from service.supervisor import when_parent_is_gone
    from tap.tap_app import TapApp

    allow_open_files(2 * settings.tap_max_connections + _OTHER_FILES)  # a client's, and its upstream's
    stopped = asyncio.Event()
    stop_on_signals(stopped.set)
    if number is not None:
        when_parent_is_gone(stopped.set)
    async with contextlib.AsyncExitStack() as beside:
        if number is not None:
            beside.enter_context(logs.bound(process=number))
        observation = await beside.enter_async_context(observing(settings, number))
        app = TapApp(settings, upstreams, shares_port=number is not None)
        observation.parts["tap"] = app
        if (metrics := metrics_of(settings)) is not None:
            metrics.add(app.samples)
            observation.routes.update(metrics.routes)
        try:
            await app.start()
            collect_garbage_rarely()
            await stopped.wait()
            observation.stopping()
        finally:
            await app.stop()
