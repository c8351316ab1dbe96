"""Find out about a port of this machine: is it free, and which server answers there?"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from embedded.free_ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable


def client_of(port: int, password: str) -> Redis:
    """Return a client of the server on a port, which never retries a command."""
    return Redis(
        host=HOST, port=port, password=password or None, socket_timeout=1, retry=Retry(NoBackoff(), 0)
    )


def answers(port: int, password: str) -> bool:
    """Return whether a server answers on a port and has loaded its data."""
    try:
        with client_of(port, password) as client:
            return bool(client.ping())
    except RedisError:
        return False


def folder_of(port: int, password: str) -> Path | None:
    """Return the folder of the server on a port, or None if the server does not report it."""
    try:
        with client_of(port, password) as client:
            return Path(client.config_get("dir")["dir"]).resolve()
    except RedisError:
        return None


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition every 10 ms; return False if it was never true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
