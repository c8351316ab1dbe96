"""Run `deltaloom console` beside a worker, on this machine only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOST, _PORT = "127.0.0.1", 8790
_STOPS_WITHIN = 5.0
_OF_THE_WORKER = ("DELTALOOM_HTTP", "DELTALOOM_HEARTBEAT_FILE", "DELTALOOM_CONSUMER")
"""Variables that only one process can use."""


@contextmanager
def console_beside() -> Iterator[str]:
    """Run a console on REDIS_URL within the block, and yield its address."""
    port = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name not in _OF_THE_WORKER},
        "DELTALOOM_CONSOLE_LISTEN": f"{_HOST}:{port}",
        "DELTALOOM_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "console"], env=environment, stdin=subprocess.DEVNULL
    )
    try:
        base = os.environ.get("DELTALOOM_CONSOLE_BASE_PATH", "/")
        yield f"http://{_HOST}:{port}{base}"
    finally:
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    """Return the console's usual port, or another one if a program has it."""
    for port in (_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return _PORT
