"""`deltaloom worker`: run one worker in the foreground."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.settings import Settings

EXAMPLES = examples(
    "REDIS_URL=redis://redis:6379 deltaloom worker",
    "DELTALOOM_HANDLERS=refusal,lifecycle DELTALOOM_LOG_FORMAT=json deltaloom worker",
)


def run() -> None:
    """Run a worker until SIGTERM or Ctrl-C. Start as many as you like.

    Settings come from the environment: REDIS_URL, and DELTALOOM_… (the README lists them). If the server is
    away, the worker waits for it.
    """
    from service.cli.connection import read_settings

    work(read_settings())


def work(settings: Settings) -> None:
    """Run a worker in this process until it is told to stop; a wrong setting is told before it starts."""
    from service import logs
    from service.app import routing_table

    routing_table(settings)
    logs.configure(settings)
    try:
        import uvloop
    except ImportError:  # it is not there on Windows
        asyncio.run(_until_told(settings))
    else:
        uvloop.run(_until_told(settings))


async def _until_told(settings: Settings) -> None:
    """Run a worker. A closed terminal tells it to stop as SIGTERM does."""
    from service.app import run_worker

    if sys.platform != "win32":
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, signal.raise_signal, signal.SIGTERM)
    await run_worker(settings)
