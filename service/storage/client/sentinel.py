"""Clients of the current master of a group of sentinels, with fixes for three problems of redis-py.

1. The client here asks the sentinels for the master at every connect. redis-py's client does not when it
   retries a command on a broken connection, but connects to the previous address. A master that died and is
   back accepts writes for some seconds, until the sentinels make it a replica. Those writes are lost.
2. redis-py moves the sentinel that has answered to the front of a list that all calls share. Two concurrent
   calls can put one sentinel into the list twice and drop another one, with its connections open. Here each
   call of the asyncio client has a list of its own.
3. If no sentinel answers, redis-py reports that there is no master and prints its own clients instead of the
   cause, such as a password, a certificate or an address. Here the error has the cause.
"""

from __future__ import annotations

import asyncio
from copy import copy
from typing import Any, NoReturn, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.client import Redis as BlockingRedis
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import TimeoutError as NoAnswerError
from redis.retry import Retry as BlockingRetry
from redis.sentinel import MasterNotFoundError as BlockingMasterNotFoundError
from redis.sentinel import Sentinel as BlockingSentinel
from redis.sentinel import SentinelManagedConnection as BlockingSentinelManagedConnection
from redis.sentinel import SentinelManagedSSLConnection as BlockingSentinelManagedSSLConnection

from service.storage.client.limited_pool import LimitedSentinelPool

Hosts = list[tuple[str, int]]

_TIMEOUT = 2.0
"""Seconds to wait for a connection to a sentinel, and then for each answer, before the next one is asked."""


def _raise_for(service: str, answers: list[Any]) -> NoReturn:
    """Raise the reason why no master was found. `answers` has the answer or the error of each sentinel.

    Raises:
        MasterNotFoundError: at least one sentinel answers, but none knows a healthy master.
        ConnectionError, TimeoutError: no sentinel answers; type and text are those of the first error.
    """
    troubles = [each for each in answers if isinstance(each, NoConnectionError | NoAnswerError)]
    if len(troubles) < len(answers):
        raise MasterNotFoundError(f"the sentinels know no healthy master {service!r}")
    raise type(troubles[0])(f"no sentinel answers: {troubles[0]}") from troubles[0]


class _Sentinels(Sentinel):
    async def discover_master(self, service_name: str) -> Any:
        """Return the master's (address, port) from the first sentinel that knows a healthy master.

        The next call asks this sentinel first.

        Raises:
            MasterNotFoundError: at least one sentinel answers, but none knows a healthy master.
            ConnectionError, TimeoutError: no sentinel answers.
        """
        asked = copy(self)
        asked.sentinels = [*self.sentinels]
        try:
            address = await Sentinel.discover_master(asked, service_name)
        except MasterNotFoundError:
            asking = [sentinel.ping() for sentinel in asked.sentinels]
            answers = await asyncio.gather(*asking, return_exceptions=True)
        else:
            self.sentinels = asked.sentinels
            return address
        _raise_for(service_name, answers)


class _BlockingSentinels(BlockingSentinel):
    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except BlockingMasterNotFoundError:
            answers = [_answer_of(sentinel) for sentinel in self.sentinels]
        _raise_for(service_name, answers)


def _answer_of(sentinel: BlockingRedis) -> Any:
    try:
        return sentinel.ping()
    except (NoConnectionError, NoAnswerError) as error:
        return error


class _AskingConnection:
    """A connection that asks the sentinels for the master at every connect."""

    async def connect_check_health(self, **options: Any) -> None:
        """Connect to the current master.

        Call `connect`, which asks the sentinels for its address. If `connect` itself is the caller, connect
        to the address that it has found.
        """
        if options.get("retry_socket_connect", True):  # `connect` itself passes False
            await self.connect()  # type: ignore[attr-defined]  # the connection's
        else:
            await super().connect_check_health(**options)  # type: ignore[misc]  # the same


class _Connection(_AskingConnection, SentinelManagedConnection):  # type: ignore[misc]  # wider
    pass


class _TlsConnection(_AskingConnection, SentinelManagedSSLConnection):  # type: ignore[misc]  # wider
    pass


class Master(Redis):
    """An asyncio client of the master behind sentinels."""

    _sentinel: Sentinel

    @classmethod
    def found_by(
        cls,
        sentinels: Hosts,
        login: dict[str, str],
        service: str,
        *,
        single: bool,
        limited: bool,
        **options: Any,
    ) -> Self:
        """Return a client, without connecting it yet.

        Args:
            sentinels: addresses of some sentinels.
            login: user and password of the sentinels; empty if they need none.
            service: name of the master, as configured in the sentinels.
            single: True for a client that sends all commands over one connection.
            limited: True for at most eight connections in use; further calls wait. False for no such limit.
            options: options of the connections to the master. Their TLS options also apply to the sentinels.
        """
        asked = {**_sentinel_options(login, options), "retry": Retry(NoBackoff(), 0)}
        sentinel = _Sentinels(sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        kind = _TlsConnection if options.pop("ssl", False) else _Connection
        pool_kind = LimitedSentinelPool if limited else SentinelConnectionPool
        pool = pool_kind(service, sentinel, connection_class=kind, **options)  # type: ignore[no-untyped-call]
        client = cls(connection_pool=pool, single_connection_client=single)
        client.auto_close_connection_pool = True
        client._sentinel = sentinel
        return client

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as in its base
        """Close the connections to the sentinels and to the master.

        If `close_connection_pool` is False, those to the master stay open.
        """
        await super().aclose(close_connection_pool)
        await self._sentinel.aclose()


class _BlockingAskingConnection:
    """The blocking counterpart of `_AskingConnection`."""

    def connect_check_health(self, **options: Any) -> None:
        """Connect to the current master, as `_AskingConnection` does."""
        if options.get("retry_socket_connect", True):
            self.connect()  # type: ignore[attr-defined]  # the connection's
        else:
            super().connect_check_health(**options)  # type: ignore[misc]  # the same


class _BlockingConnection(_BlockingAskingConnection, BlockingSentinelManagedConnection):  # type: ignore[misc]  # wider
    pass


class _BlockingTlsConnection(_BlockingAskingConnection, BlockingSentinelManagedSSLConnection):  # type: ignore[misc]  # wider
    pass


class BlockingMaster(BlockingRedis):
    """A blocking client of the master behind sentinels."""

    _sentinel: BlockingSentinel

    @classmethod
    def found_by(cls, sentinels: Hosts, login: dict[str, str], service: str, **options: Any) -> Self:
        """Return a client, without connecting it yet. The arguments are those of `Master.found_by`."""
        asked = {**_sentinel_options(login, options), "retry": BlockingRetry(NoBackoff(), 0)}
        sentinel = _BlockingSentinels(sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        kind = _BlockingTlsConnection if options.pop("ssl", False) else _BlockingConnection
        client: Self = sentinel.master_for(service, cls, connection_class=kind, **options)  # type: ignore[no-untyped-call]
        client._sentinel = sentinel
        return client

    def close(self) -> None:
        """Close the connections to the master and to the sentinels."""
        super().close()
        for each in self._sentinel.sentinels:
            each.close()


def _sentinel_options(login: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options to connect to a sentinel: `login`, the TLS options of `options`, and `_TIMEOUT`."""
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    return {**tls, **login, "socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
