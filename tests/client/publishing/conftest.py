"""A server that the tests of the publisher may stop, fill and kill."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis.exceptions import RedisError

from embedded.embedded_server import EmbeddedServer
from tests import server as servers

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class OwnServer:
    """A server of one test."""

    url: str
    pid: int

    def client(self) -> Redis:
        """Return a client of the server."""
        return Redis.from_url(self.url)

    def entries(self, stream: str = "deltaloom:deltas") -> list[dict[bytes, bytes]]:
        """Return the fields of the entries of a stream."""
        with self.client() as client:
            return [fields for _, fields in client.xrange(stream)]

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Suspend the server for the duration of the block: connections stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Let the server refuse writes for want of memory for the duration of the block."""
        with self.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1")
            try:
                yield
            finally:
                with contextlib.suppress(RedisError):
                    client.config_set("maxmemory", "0")


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    """Run a server for one test."""
    with EmbeddedServer(protected=False, program=Path(servers.program())) as server:
        with Redis.from_url(server.url) as client:
            pid = int(client.info("server")["process_id"])
        yield OwnServer(server.url, pid)
