"""`deltaloom relay`: bring alerts to the destinations of `alerts.toml`."""

from __future__ import annotations

import asyncio
import os
import signal
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
    """Send alerts to where people look, until SIGTERM or Ctrl-C. SIGHUP reads the file again.

    Start two, on two machines: one of them sends to a destination at a time, and the other one goes on where
    it stops. Nothing that a destination has confirmed is sent again.
    """
    from service import logs
    from service.cli.connection import read_settings
    from service.cli.loop import run_in_loop
    from service.cli.worker import check_alerts

    settings = read_settings()
    check_alerts(config)
    logs.configure(settings)
    run_in_loop(_until_told(settings, config))


async def _until_told(settings: Settings, config: Path) -> None:
    """Relay until a first signal; a second one ends the process at once."""
    from service.apps.relay import relaying
    from service.cli.hangup import on_hangup

    told = asyncio.Event()

    def on_signal(number: int) -> None:
        if told.is_set():
            os._exit(128 + number)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    async with relaying(settings, config, os.environ) as relays:
        on_hangup(relays.reload)
        relays.start()
        await told.wait()
