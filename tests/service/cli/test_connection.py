"""Test that a server's address is shown without secrets."""

from __future__ import annotations

import re
from typing import Any

import pytest
from redis.asyncio import Redis

from service.cli.command_errors import CommandError
from service.cli.connect import address, explained, read_settings
from service.settings import SettingsError
from tests.service.cli.command import deltaloom, environment


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://user:s3cret@host:1/2?password=s3cret", "rediss://host:1/2"),
        ("redis://:s3c@ret@host", "redis://host"),
        ("unix:///run/redis.sock?password=s3cret", "unix:///run/redis.sock"),
    ],
)
def test_address(url: str, shown: str) -> None:
    """Hide the login and the options. Otherwise a password would be in a terminal, a log or a bug report."""
    assert address(url) == shown


@pytest.mark.parametrize("url", ["redis://host:port", "redis://host:99999"])
def test_an_invalid_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Report an invalid URL without its value. Otherwise a traceback would show the password."""
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^REDIS_URL=\(not shown\) is not allowed: "):
        read_settings()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:s3#c_ret@host", "# as %23"),
        ("redis://:s3/c_ret@host", "/ as %2F"),
        ("redis://user:s3?c_ret@host", "? as %3F"),
        ("redis://host?timeout=5", "no option 'timeout'"),
        ("redis://host?decode_responses=true&password=s3cret", "no option 'decode_responses'"),
        ("redis://host?socket_timeout=soon", "socket_timeout"),
        ("redis://host?ssl_cert_reqs=none", "'ssl_cert_reqs' without TLS"),
        ("rediss://host?ssl_cert_reqs=some", "some"),
        ("unix:///run/redis.sock?socket_keepalive=true", "socket_keepalive"),
    ],
)
def test_a_fault_of_the_url_is_one_line(url: str, says: str) -> None:
    """Report the fault in one line without secrets, which tracebacks and urllib's errors would show."""
    for command in ("check", "worker"):
        done = deltaloom(command, env=environment(url))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith("REDIS_URL=(not shown) is not allowed: ")
        assert says in done.stderr
        assert not re.search("s3|c_ret", done.stderr)


async def test_a_connection_that_is_just_closed_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    """Say that no server answers. Otherwise a command would end in a traceback when its server dies."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    async with Redis.from_url(redis_url, single_connection_client=True) as client:
        await client.ping()
        connection: Any = client.connection
        writer, connection._writer = connection._writer, None  # noqa: SLF001 - the state in the middle of a disconnect
        with pytest.raises(CommandError, match="no server answers"), explained(read_settings()):
            await connection._send_packed_command([b"PING"])  # noqa: SLF001 - the next step of a command
        connection._writer = writer  # noqa: SLF001 - lets the client close it
