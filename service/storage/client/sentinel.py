"""A client of the master that sentinels know, whoever that is at the moment.

It asks the sentinels whenever it connects, and connects anew when the master is gone or has become a replica.

redis-py's own asks them when it takes a connection, but not when it sends a command again on one that broke:
then it connects to the address it had. A master that died and is back takes writes for some seconds, until
the sentinels make it a replica; whatever it was told in that time is lost.

It also moves the sentinel that has answered to the front of a list that all calls share. When two calls do
so at once, that sentinel is in the list twice, and another one is forgotten for good, with its connections
open. So here each call has a list of its own.

Where no sentinel answers, redis-py says that there is no master, and writes out its own clients in place of
what is the matter: a password, a certificate, an address.
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

Hosts = list[tuple[str, int]]

_TIMEOUT = 2.0
"""Seconds that a sentinel has for its answer, before the next one is asked."""


def _raise_for(service: str, answers: list[Any]) -> NoReturn:
    """Say why there is no master: what each of the sentinels answers, or raises."""
    troubles = [each for each in answers if isinstance(each, NoConnectionError | NoAnswerError)]
    if len(troubles) < len(answers):
        raise MasterNotFoundError(f"the sentinels know no master {service!r} that is well")
    raise type(troubles[0])(f"no sentinel answers: {troubles[0]}") from troubles[0]


class _Sentinels(Sentinel):
    async def discover_master(self, service_name: str) -> Any:
        """Ask one sentinel after the other; the next call begins with the one that has answered."""
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


class _Asking:
    """A connection that never goes back to an address without asking."""

    async def connect_check_health(self, **options: Any) -> None:
        """Connect: where `connect` has found the master, or, without it, there too."""
        if options.get("retry_socket_connect", True):  # which is how `connect` does not call it
            await self.connect()  # type: ignore[attr-defined]  # the connection's
        else:
            await super().connect_check_health(**options)  # type: ignore[misc]  # the same


class _Connection(_Asking, SentinelManagedConnection):  # type: ignore[misc]  # wider
    pass


class _TlsConnection(_Asking, SentinelManagedSSLConnection):  # type: ignore[misc]  # wider
    pass


class Master(Redis):
    """For asyncio."""

    _sentinel: Sentinel

    @classmethod
    def found_by(
        cls, sentinels: Hosts, login: dict[str, str], service: str, *, single: bool, **options: Any
    ) -> Self:
        """A client.

        Args:
            sentinels: the addresses of some of them.
            login: their user and password, if they want any.
            service: the name under which they know the master.
            single: with one connection only.
            options: of the connections to the master.
        """
        asked = {**_impatient(login, options), "retry": Retry(NoBackoff(), 0)}
        sentinel = _Sentinels(sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        kind = _TlsConnection if options.pop("ssl", False) else _Connection
        pool = SentinelConnectionPool(service, sentinel, connection_class=kind, **options)  # type: ignore[no-untyped-call]
        client = cls(connection_pool=pool, single_connection_client=single)
        client.auto_close_connection_pool = True
        client._sentinel = sentinel
        return client

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as its base has it
        """Close the connections to the master and to the sentinels."""
        await super().aclose(close_connection_pool)
        await self._sentinel.aclose()


class _BlockingAsking:
    """The same as `_Asking`."""

    def connect_check_health(self, **options: Any) -> None:
        """Connect: see `_Asking`."""
        if options.get("retry_socket_connect", True):
            self.connect()  # type: ignore[attr-defined]  # the connection's
        else:
            super().connect_check_health(**options)  # type: ignore[misc]  # the same


class _BlockingConnection(_BlockingAsking, BlockingSentinelManagedConnection):  # type: ignore[misc]  # wider
    pass


class _BlockingTlsConnection(_BlockingAsking, BlockingSentinelManagedSSLConnection):  # type: ignore[misc]  # wider
    pass


class BlockingMaster(BlockingRedis):
    """For a program that waits."""

    _sentinel: BlockingSentinel

    @classmethod
    def found_by(cls, sentinels: Hosts, login: dict[str, str], service: str, **options: Any) -> Self:
        """A client: see `Master.found_by`."""
        asked = {**_impatient(login, options), "retry": BlockingRetry(NoBackoff(), 0)}
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


def _impatient(login: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """How to connect to a sentinel: by TLS if the master is, and not waiting for one that hangs."""
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    return {**tls, **login, "socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
