"""Which of the server's troubles only time will mend."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import Redis

from service.ports.storage import SetUpWronglyError, StorageUnavailableError
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
    """The batch in hand would be lost to its worker, or the log would have a traceback for each attempt."""
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
        (exceptions.ResponseError("ERR unknown command 'EVALSHA', with args beginning with: "), "command"),
        (exceptions.ResponseError("unknown command 'EVALSHA', with args beginning with: "), "command"),
    ],
    ids=["type", "right", "command", "command without its code"],
)
def test_what_somebody_has_to_mend_is_waited_for(answer: Exception, state: str) -> None:
    """Otherwise healthy entries are dead letters before the rights are mended."""
    with pytest.raises(SetUpWronglyError) as caught, unavailable_if_away():
        raise answer
    assert caught.value.state == state
    assert "; " in str(caught.value)


def test_trouble_that_stays() -> None:
    """Otherwise a worker waits for ever for its own mistake."""
    with pytest.raises(exceptions.ResponseError), unavailable_if_away():
        raise exceptions.ResponseError("ERR a bug")


def test_a_mistake_in_a_cluster_stays() -> None:
    """Keys of two slots in one call would be tried for ever."""
    with pytest.raises(exceptions.RedisClusterException), unavailable_if_away():
        raise exceptions.RedisClusterException("EVALSHA - all keys must map to the same key slot")


async def test_a_connection_that_another_task_closes(redis_url: str) -> None:
    """A batch would fail, with a traceback, because of what happened to another partition's server."""
    async with Redis.from_url(redis_url, single_connection_client=True) as client:
        await client.ping()
        connection: Any = client.connection
        writer, connection._writer = connection._writer, None  # noqa: SLF001 - as it is in the midst of it
        with pytest.raises(StorageUnavailableError), unavailable_if_away():
            await connection._send_packed_command([b"PING"])  # noqa: SLF001 - the step after
        connection._writer = writer  # noqa: SLF001 - to be closed


@pytest.mark.parametrize("mistake", [AttributeError("None has no such thing"), RuntimeError("ours")])
def test_mistakes_of_ours_stay(mistake: Exception) -> None:
    """A mistake would look like a server that is away."""
    with pytest.raises(type(mistake)), unavailable_if_away():
        raise mistake
