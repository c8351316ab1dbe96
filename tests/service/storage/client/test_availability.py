"""Test which errors of the server are worth a retry."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import Redis

from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.client.availability import unavailable_if_away


@pytest.mark.parametrize(
    ("raised", "state"),
    [
        (exceptions.ConnectionError("refused"), "ConnectionError"),
        (exceptions.TimeoutError("hangs"), "TimeoutError"),
        (exceptions.BusyLoadingError("LOADING"), "BusyLoadingError"),
        (exceptions.ReadOnlyError("READONLY"), "ReadOnlyError"),
        (exceptions.OutOfMemoryError("OOM"), "OutOfMemoryError"),
        (exceptions.ResponseError("OOM command not allowed, in a script"), "OOM"),
        (exceptions.ResponseError("MISCONF cannot write to disk"), "MISCONF"),
        (exceptions.ResponseError("MASTERDOWN link is down"), "MASTERDOWN"),
        (exceptions.ResponseError("BUSY a script is running"), "BUSY"),
        (ConnectionResetError(104, "reset"), "ConnectionResetError"),
        (exceptions.ResponseError("WAIT cannot be used with replica instances"), "WAIT"),
        (
            exceptions.ResponseError(
                "Attempted to access a non local key in a cluster node script: on @user_script:65."
            ),
            "script ended",
        ),
        (exceptions.ClusterDownError("The cluster is down"), "ClusterDownError"),
        (exceptions.ClusterError("TTL exhausted."), "ClusterError"),
        (exceptions.TryAgainError("Multiple keys request during rehashing of slot"), "TryAgainError"),
        (exceptions.MovedError("7 127.0.0.1:7001"), "MovedError"),
        (exceptions.SlotNotCoveredError("7"), "SlotNotCoveredError"),
        (
            exceptions.RedisClusterException("Redis Cluster cannot be connected. Please …"),
            "RedisClusterException",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trouble_that_passes(raised: Exception, state: str) -> None:
    """Report temporary errors as StorageUnavailableError. Otherwise the batch in hand would fail."""
    with pytest.raises(StorageUnavailableError) as caught, unavailable_if_away():
        raise raised
    assert caught.value.state == state


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (exceptions.ResponseError("WRONGTYPE the key t:open is a list, not a zset"), "WRONGTYPE"),
        (
            exceptions.NoPermissionError("this user may not run the command xack on the key t:deltas"),
            "NOPERM",
        ),
        (exceptions.ResponseError("The user executing the script can't run this command"), "NOPERM"),
        (
            exceptions.ResponseError("ACL failure in script: User worker has no permissions to run 'xack'"),
            "NOPERM",
        ),
        (exceptions.ResponseError("ERR unknown command 'EVALSHA', with args beginning with: "), "command"),
        (exceptions.ResponseError("unknown command 'EVALSHA', with args beginning with: "), "command"),
    ],
    ids=[
        "type",
        "right",
        "right of a script",
        "right of a script since 7.2",
        "command",
        "command without its code",
    ],
)
def test_wrong_setup_is_waited_for(answer: Exception, state: str) -> None:
    """Wait for wrong permissions or types to be repaired. Otherwise healthy entries would be dead letters."""
    with pytest.raises(SetupError) as caught, unavailable_if_away():
        raise answer
    assert caught.value.state == state
    assert "; " in str(caught.value)


def test_trouble_that_stays() -> None:
    """Raise other errors unchanged. Otherwise a worker would retry its own bug forever."""
    with pytest.raises(exceptions.ResponseError), unavailable_if_away():
        raise exceptions.ResponseError("ERR a bug")


def test_a_mistake_in_a_cluster_stays() -> None:
    """Raise a cross-slot error unchanged, since a retry cannot succeed."""
    with pytest.raises(exceptions.RedisClusterException), unavailable_if_away():
        raise exceptions.RedisClusterException("EVALSHA - all keys must map to the same key slot")


async def test_a_connection_that_another_task_closes(redis_url: str) -> None:
    """Treat a connection that another task is closing as unavailable. Otherwise the batch would fail."""
    async with Redis.from_url(redis_url, single_connection_client=True) as client:
        await client.ping()
        connection: Any = client.connection
        writer, connection._writer = connection._writer, None  # noqa: SLF001 - the state in the middle of a disconnect
        with pytest.raises(StorageUnavailableError), unavailable_if_away():
            await connection._send_packed_command([b"PING"])  # noqa: SLF001 - the next step of a command
        connection._writer = writer  # noqa: SLF001 - lets the client close it


@pytest.mark.parametrize("mistake", [AttributeError("None has no such thing"), RuntimeError("ours")])
def test_mistakes_of_ours_stay(mistake: Exception) -> None:
    """Raise our own bugs unchanged. Otherwise they would look like an unreachable server."""
    with pytest.raises(type(mistake)), unavailable_if_away():
        raise mistake


@pytest.mark.parametrize(
    "error", [SetupError("NOPERM", "no"), StorageUnavailableError("WAIT", "no")], ids=str
)
def test_an_error_passes_through_an_outer_block(error: StorageUnavailableError) -> None:
    """Otherwise a missing permission would look like a server that is unavailable, and need no operator."""
    with pytest.raises(StorageUnavailableError) as caught, unavailable_if_away(), unavailable_if_away():
        raise error
    assert caught.value is error
