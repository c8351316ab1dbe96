"""`deltaloom relay`: deliver alerts to the destinations of `alerts.toml`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.alerts.file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.settings import Settings

EXAMPLES = examples(
    "REDIS_URL=redis://redis:6379 deltaloom relay",
    "deltaloom relay --config /etc/deltaloom/alerts.toml",
)


def run(config: ConfigFile = DEFAULT) -> None:
    """Deliver alerts to their destinations until SIGTERM or Ctrl-C. SIGHUP reloads the file.

    Start two, on two machines: one of them sends to a destination at a time, and the other takes over when it
    stops. Alerts that a destination has confirmed are not sent again.
    """
    from service import logs
    from service.cli.connect import read_settings
    from service.cli.process_wide import run_in_loop
    from service.cli.worker import check_alerts

    settings = read_settings()
    check_alerts(config)
    logs.configure(settings)
    run_in_loop(_until_stopped(settings, config))


async def _until_stopped(settings: Settings, config: Path) -> None:
    """Relay until a signal or a closed terminal."""
    from service.apps.relay_app import relaying
    from service.cli.process_wide import on_hangup, stop_on_signals

    stopped = asyncio.Event()
    stop_on_signals(stopped.set)
    async with relaying(settings, config, os.environ) as relays:
        on_hangup(relays.reload)
        relays.start()
        await stopped.wait()
