"""`deltaloom console`: serve the console in the foreground."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.alerts_file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from pathlib import Path

    from console.console_settings import ConsoleSettings
    from service.alerts.deciding.policy import LoadedPolicy

EXAMPLES = examples(
    "deltaloom console",
    "deltaloom console --allow-actions --config alerts.toml",
    "DELTALOOM_CONSOLE_LISTEN=0.0.0.0:8790 DELTALOOM_CONSOLE_TOKEN_FILE=tokens deltaloom console",
)


def run(
    allow_actions: Annotated[
        bool, typer.Option("--allow-actions", help="Let visitors send alerts again, and mark them as seen.")
    ] = False,
    config: ConfigFile = DEFAULT,
) -> None:
    """Show responses, alerts, rates and health in a browser, until SIGTERM or Ctrl-C.

    It reads the streams without a group, and only while somebody looks. By default it listens on this machine
    only; any other address needs authentication. If there is an alerts.toml, texts are redacted as in alerts.
    Settings come from the environment: REDIS_URL, and
    DELTALOOM_CONSOLE_… (docs/console.md lists them).
    """
    from service.cli.process_wide import lean_imports, run_in_loop

    with lean_imports():
        import console.console_app  # noqa: F401 - imports most of what a console needs
        from console.console_settings import ConsoleSettings
        from service.cli.log_level import configure_logs

    settings = ConsoleSettings.read()
    configure_logs(settings)
    given = config.exists() or config != DEFAULT
    alerts_file = loaded(config, needs_secrets=allow_actions) if given else None
    run_in_loop(_until_stopped(settings, alerts_file, allows_actions=allow_actions))


def loaded(file: Path, *, needs_secrets: bool) -> LoadedPolicy:
    """Return the alerts file; a console that only shows needs no secrets of destinations.

    Raises:
        ConfigError: the file cannot be read, has mistakes, or a secret is missing.
    """
    import os

    from service.alerts.deciding.config import parse, read
    from service.alerts.deciding.findings import SourceLocations
    from service.alerts.deciding.policy import LoadedPolicy, Policy, load

    if needs_secrets:
        return load(file, os.environ)
    text = read(file)
    config = parse(text, str(file))
    return LoadedPolicy(Policy(config), config.destinations, SourceLocations(text))


async def _until_stopped(
    settings: ConsoleSettings, alerts_file: LoadedPolicy | None, *, allows_actions: bool
) -> None:
    """Serve until a signal."""
    from console.console_app import ConsoleApp
    from service.cli.measuring import metrics_of
    from service.cli.process_wide import collect_garbage_rarely, stop_on_signals
    from service.observability.observation import observing

    stopped = asyncio.Event()
    stop_on_signals(stopped.set)
    async with observing(settings) as observation:
        app = ConsoleApp(settings, allows_actions=allows_actions, alerts_file=alerts_file)
        observation.parts["console"] = app
        if (metrics := metrics_of(settings)) is not None:
            from console.console_figures import samples_of

            metrics.add(lambda: samples_of(app))
            observation.routes.update(metrics.routes)
        try:
            await app.start()
            collect_garbage_rarely()
            await stopped.wait()
            observation.stopping()
        finally:
            await app.stop()
