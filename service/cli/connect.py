"""Read the settings of a sub-command, connect to its server, and explain connection errors."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis import asyncio as redis_asyncio
from redis import exceptions
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import Connection, parse_url
from redis.retry import Retry

from service.cancelling import done_within
from service.cli.command_errors import CommandError
from service.ports.storage import SetupError, StorageUnavailableError
from service.settings import Settings, SettingsError, url_variable
from service.storage.client.availability import distrust_of, from_connection
from service.storage.client.connection import blocking_client_of, client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.client import Redis

CONNECT_TIMEOUT = 5.0
"""Maximum seconds to connect; short, since a person waits."""

_ATTEMPTS = 3


def read_settings(**overrides: Any) -> Settings:
    """Return the settings of this process.

    Raises:
        SettingsError: variables are not valid; one line for each.
    """
    settings = Settings.read(**overrides)
    try:
        for url in settings.address.urls:
            _check_options(parse_url(url))  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, exceptions.RedisError) as error:
        raise SettingsError(f"{url_variable()}=(not shown) is not allowed: {error}") from None
    return settings


def _check_options(options: dict[str, Any]) -> None:
    """Raise an error without secrets if a connection does not accept an option or its value.

    A missing file is checked first: redis-py would not name it, and would report an unavailable server.
    """
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in options and not Path(options[name]).is_file():
            raise ValueError(f"{name}: there is no file {options[name]}")
    of_connections = {name: value for name, value in options.items() if name != "max_connections"}
    of_connections.pop("connection_class", Connection)(**of_connections)


def address(url: str) -> str:
    """Return the URL of a server without parts that may be secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


_AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, StorageUnavailableError)


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turn errors of the server or the connection into a `CommandError` with address and remedy."""
    where = address(settings.redis_url)
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
        how = "REDIS_URL=redis://user:password@host:port"
        if settings.address.mode == "sentinel":
            how = "in REDIS_URL, user:password@ is for the servers, ?sentinel_password= for the sentinels"
        raise CommandError(
            f"{where} does not accept this user or password: {_one_line(error)}; {how}"
        ) from error
    except exceptions.BusyLoadingError as error:
        raise CommandError(f"{where} is still loading its data: try again in a moment") from error
    except (exceptions.ClusterDownError, exceptions.ClusterError, exceptions.TryAgainError) as error:
        raise CommandError(f"the cluster at {where} cannot do that now: {_one_line(error)}") from error
    except exceptions.RedisClusterException as error:
        if "Cluster mode is not enabled" in str(error):
            raise CommandError(f"there is no cluster at {where}; redis:// is for one server") from error
        raise CommandError(f"no node of the cluster at {where} answers ({_reason(error)})") from error
    except (*_AWAY, AttributeError, RuntimeError) as error:
        if not isinstance(error, _AWAY) and not from_connection(error):
            raise
        raise CommandError(_unavailable(where, error)) from error
    except exceptions.RedisError as error:
        raise CommandError(f"{where} refused: {_one_line(error)}") from error


def _unavailable(where: str, error: Exception) -> str:
    """Return the message for a server that does not answer, is not trusted, or is misconfigured."""
    if isinstance(error, SetupError):
        return f"{where} refused: {_one_line(error)}"
    if distrust := distrust_of(error):
        return f"{where} is not trusted: {distrust}"
    return (
        f"no server answers at {where} ({_reason(error)}): start one there "
        "(in a clone, `make run` brings its own), or name another with REDIS_URL"
    )


@asynccontextmanager
async def connect(settings: Settings, within: float | None = None) -> AsyncIterator[redis_asyncio.Redis]:
    """Yield a client of the server, which has answered; replies are bytes.

    Args:
        settings: the address.
        within: maximum seconds for the first answer; None for that of the connection's attempts.
    """
    client = client_of(settings.address, socket_connect_timeout=CONNECT_TIMEOUT, retry=_asyncio_retry())
    try:
        with explained(settings):
            if within is None:
                await client.ping()
            elif not await done_within(within, _ping(client)):
                where = address(settings.redis_url)
                raise CommandError(
                    f"{where} has not answered in {within:g} seconds: it hangs or is overloaded"
                )
            yield client
    finally:
        await client.aclose()


async def _ping(client: redis_asyncio.Redis) -> None:
    await client.ping()


@contextmanager
def connect_blocking(settings: Settings) -> Iterator[Redis]:
    """Yield a blocking client, for commands that wait for a pipe or stream and must end at once on Ctrl-C."""
    options = {"socket_connect_timeout": CONNECT_TIMEOUT, "retry": Retry(_backoff(), _ATTEMPTS)}
    with explained(settings), blocking_client_of(settings.address, **options) as client:
        with suppress(exceptions.NoPermissionError):  # also an answer: the user may only XADD
            client.ping()
        yield client


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=0.5)


def _asyncio_retry() -> redis_asyncio.retry.Retry:
    return redis_asyncio.retry.Retry(_backoff(), _ATTEMPTS)


def _reason(error: BaseException) -> str:
    """Return the operating system's reason for an error, which libraries wrap several times."""
    if distrust := distrust_of(error):
        return distrust
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return cause.strerror or str(cause)
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
