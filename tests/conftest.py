"""Fixtures for tests that need a server, and the lines about the run: its server and the tests left out."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, settings
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from tests import server as servers
from tests import tiers
from tests.logging_restored import logging_restored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

# No example has a deadline, so that no test fails because the machine is busy. `make test` runs the profile
# `dev`, `make test-all` and CI run `ci`. The mutation program runs `mutants`, which does not shrink failing
# examples.
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=200)
settings.register_profile("mutants", deadline=None, max_examples=50, phases=[Phase.explicit, Phase.generate])
settings.load_profile("dev")

_server = pytest.StashKey[servers.Server]()
_servers = pytest.StashKey[set[str]]()
_left_out = pytest.StashKey[Counter[str]]()


def _server_of(config: pytest.Config) -> servers.Server:
    """Return the server of this process; start it at the first call."""
    if _server not in config.stash:
        config.stash[_server] = servers.start()
    return config.stash[_server]


def pytest_configure() -> None:
    """Set the default handler of SIGINT, which commands inherit: background jobs of a shell ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Return two processes per core, since many tests wait; 1 process if the server is shared."""
    return 1 if servers.is_given() else 2 * (os.cpu_count() or 1)


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> str | None:
    """Return a line that names the server, if any test needs one."""
    if config.option.collectonly or not any("server" in getattr(item, "fixturenames", ()) for item in items):
        return None
    return f"server: {_server_of(config).describe()}"


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the tests that this tier leaves out."""
    for item in items[:1]:
        item.config.stash[_left_out] = tiers.left_out(items)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send counts and server description of this process to the process that reports (pytest-xdist)."""
    config = session.config
    if (output := getattr(config, "workeroutput", None)) is not None:
        counted = config.stash.get(_left_out, Counter[str]())
        output["left_out"] = dict(counted)
        output["server"] = config.stash[_server].describe() if _server in config.stash else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Store counts and server of a finished process. All processes have deselected the same tests."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[_left_out] = Counter(output.get("left_out", {}))
    if output.get("server"):
        node.config.stash.setdefault(_servers, set()).add(output["server"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the servers of a parallel run, and one line about the tests that were not run."""
    for description in config.stash.get(_servers, ()):
        terminalreporter.write_line(f"server: {description}")
    skipped = terminalreporter.getreports("skipped")
    if line := tiers.not_run(config.stash.get(_left_out, Counter[str]()), skipped):
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, also after an interrupt."""
    if _server in config.stash:
        config.stash[_server].stop()


@pytest.fixture(autouse=True)
def logging_is_restored() -> Iterator[None]:
    """Restore loggers and structlog, so that no test decides what later tests of this process log."""
    with logging_restored():
        yield


@pytest.fixture(autouse=True)
def nothing_is_frozen() -> None:
    """Thaw what imports have frozen, in which Hypothesis does not find its random numbers."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> servers.Server:
    """Return the server of this process.

    The fixtures `redis_url`, `redis` and `prefix` isolate tests on it.
    """
    return _server_of(pytestconfig)


@pytest.fixture
def prefix(server: servers.Server) -> Iterator[str]:
    """Yield the prefix for all keys of one test. No key has it when the test begins."""
    yield from server.isolated()


BOUNDED = (
    "deltas",
    "assembled",
    "alerts",
    "dead-letters",
    "open",
    "waiting",
    "counts",
    "counted-types",
    "counted-fields",
    "format",
    "undelivered",
    "deliveries",
    "gone",
)
"""Keys without a TTL that have another rule: streams are trimmed, the others contain only what is open."""


@pytest.fixture(autouse=True)
def no_key_is_left_for_ever(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail each test that leaves a key without a TTL and without a rule that bounds it."""
    if "prefix" not in request.fixturenames:
        yield
        return
    prefix: str = request.getfixturevalue("prefix")
    url: str = request.getfixturevalue("redis_url")
    yield
    with SyncRedis.from_url(url) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            name = key.decode()
            assert client.pttl(key) != -1 or name.endswith(tuple(f":{rule}" for rule in BOUNDED)), (
                f"{name} has no TTL and no retention rule"
            )


@pytest.fixture
def redis_url(server: servers.Server, prefix: str) -> str:  # noqa: ARG001 - the prefix isolates the test
    """Return the server's URL, for a test that uses `prefix`."""
    return server.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Yield a client that returns bytes, as the worker's does."""
    async with Redis.from_url(redis_url) as client:
        yield client
