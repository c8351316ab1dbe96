"""`deltaloom relay`: deliver alerts to the destinations of `alerts.toml`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.alerts_file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.settings import Settings

EXAMPLES = examples(
    "REDIS_URL=redis://redis:6379 deltaloom relay",
    "deltaloom relay --config /etc/deltaloom/alerts.toml",
)


def run(config: ConfigFile = DEFAULT) -> None:
    """Deliver alerts to their destinations until SIGTERM or Ctrl-C. SIGHUP reloads its files.

    Start two, on two machines: one of them sends to a destination at a time, and the other takes over when it
    stops. Alerts that a destination has confirmed are not sent again.
    """
    from service.cli.process_wide import lean_imports, run_in_loop

    with lean_imports():
        import service.apps.relay_app  # noqa: F401 - imports most of what a relay needs
        from service.cli.connect import read_settings
        from service.cli.log_level import configure_logs
        from service.cli.worker import check_alerts

    settings = read_settings()
    check_alerts(config)
    configure_logs(settings)
    run_in_loop(_until_stopped(settings, config))


async def _until_stopped(settings: Settings, config: Path) -> None:
    """Relay until a signal or a closed terminal."""
    from service.apps.relay_app import relaying
    from service.cli.exporting import exporting_traces
    from service.cli.log_level import reload_log_level
    from service.cli.measuring import metrics_of
    from service.cli.process_wide import on_hangup, stop_on_signals
    from service.observability.observation import observing
    from service.ports.instruments import RELAY_OFF

    stopped = asyncio.Event()
    stop_on_signals(stopped.set)
    metrics = metrics_of(settings)
    counts = RELAY_OFF if metrics is None else metrics.of_relay()
    async with (
        exporting_traces(settings, "deltaloom-relay", metrics) as traces,
        observing(settings) as observation,
        relaying(settings, config, os.environ, counts, traces.spans) as relays,
    ):
        if metrics is not None:
            observation.routes.update(metrics.routes)
        observation.parts |= {"relay": relays, **traces.parts}
        on_hangup(lambda: reload_log_level(settings), relays.reload)
        relays.start()
        await stopped.wait()
        observation.stopping()
