"""Send frozen entries to Redis, and tell which were confirmed, refused or neither."""

from __future__ import annotations

import contextlib

# redis-py and getaddrinfo import these at the first connection. A fork at that moment would leave the child
# with half a module, so they are imported here.
import encodings.idna
import hmac
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

try:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.cluster import ClusterNode, RedisCluster
    from redis.connection import SSLConnection, parse_url
    from redis.exceptions import (
        AuthenticationError,
        BusyLoadingError,
        ClusterDownError,
        ConnectionError,  # noqa: A004 - redis-py's name
        NoPermissionError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisError,
        ResponseError,
        TimeoutError,  # noqa: A004 - redis-py's name
        TryAgainError,
    )
    from redis.retry import Retry
    from redis.sentinel import Sentinel
    from redis.utils import get_lib_version
except ImportError as error:
    raise ImportError("deltaloom.Publisher needs redis-py: pip install 'deltaloom[redis]'") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deltaloom.address import Address
    from deltaloom.publishing.freezing import FrozenEntry

IMPORTED_EARLY: Final = (encodings.idna, hmac, secrets)
"""Modules that the first connection would import."""

get_lib_version()  # type: ignore[no-untyped-call]  # so that the modules that read a package's version are imported too

_PASSING: Final = (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,
    TryAgainError,
)
"""Errors after which a later attempt may succeed."""

_PASSING_PREFIXES: Final = (
    "MISCONF",
    "MASTERDOWN",
    "NOREPLICAS",
    "BUSY",
    "NOAUTH",
    "MOVED",
    "ASK",
    "UNBLOCKED",
)
"""Beginnings of error messages after which a later attempt may succeed."""


class SendOutcome(NamedTuple):
    """The result of an attempt to send."""

    confirmed: list[FrozenEntry]
    refused: list[FrozenEntry]
    """Entries that the server will never take."""
    left: list[FrozenEntry]
    """Entries to send again."""
    error: str | None
    """The name of the error's class, if any."""


class Sender:
    """A connection to Redis for one thread; it opens at the first use, and again after an error.

    Args:
        make_client: function that returns a client of redis-py: single server, sentinel or cluster.
    """

    def __init__(self, make_client: Callable[[], Any]) -> None:
        self._make_client = make_client
        self._client: Any = None

    def send(self, entries: Sequence[FrozenEntry]) -> SendOutcome:
        """Add the entries to their streams, in order, in one round trip. No error is raised."""
        try:
            if self._client is None:
                self._client = self._make_client()
                if not isinstance(self._client, RedisCluster):  # which has asked a node for its slots
                    self._client.ping()  # so that an error from here on means that entries may have arrived
            exchange = _prepared(self._client, entries)
        except Exception as error:  # noqa: BLE001 - a client may raise anything; the entries stay as they are
            self.close()
            return SendOutcome([], [], list(entries), type(error).__name__)
        before = [entry.may_have_arrived for entry in entries]
        # Set it now and not at an error: the publisher may be closed while this waits for replies.
        for entry in entries:
            entry.may_have_arrived = True
        try:
            replies = exchange()
        except Exception as error:  # noqa: BLE001 - the same
            self.close()
            return SendOutcome([], [], list(entries), type(error).__name__)
        return _outcome(entries, before, replies)

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(RedisError, OSError):
                client.close()


def _prepared(client: Any, entries: Sequence[FrozenEntry]) -> Callable[[], Sequence[Any]]:
    """Return a function that adds the entries and returns the replies."""
    connection = getattr(client, "connection", None)
    if isinstance(client, Redis) and connection is not None:
        return partial(_exchange, connection, b"".join([_command(entry) for entry in entries]), len(entries))
    pipeline = client.pipeline(transaction=False)
    for entry in entries:
        pipeline.xadd(entry.key, entry.fields)
    return partial(pipeline.execute, raise_on_error=False)


def _command(entry: FrozenEntry) -> bytes:
    """Return the bytes of the command that adds an entry. redis-py would take ten times as long for them."""
    queue = entry.queue
    if queue is None or entry.context:
        return _packed("XADD", entry.key, "*", *(word for field in entry.fields.items() for word in field))
    if queue.wire is None:
        words = ("XADD", entry.key, "*", "response_id", entry.response_id, "event")
        queue.wire = _packed(*words, missing=1)
    event = entry.event
    return b"%b$%d\r\n%b\r\n" % (queue.wire, len(event), event)


def _packed(*words: str | bytes, missing: int = 0) -> bytes:
    """Return the bytes of a command, to which the caller appends the last `missing` words."""
    data = [word.encode() if isinstance(word, str) else word for word in words]
    return b"".join(
        [b"*%d\r\n" % (len(data) + missing), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in data)]
    )


def _exchange(connection: Any, commands: bytes, count: int) -> list[Any]:
    """Send commands, and return a reply or an error for each."""
    connection.send_packed_command([commands])
    replies: list[Any] = []
    for _ in range(count):
        try:
            replies.append(connection.read_response(disable_decoding=True))
        except ResponseError as error:
            replies.append(error)
    return replies


def _outcome(entries: Sequence[FrozenEntry], before: Sequence[bool], replies: Sequence[Any]) -> SendOutcome:
    """Return the result of replies; `before` says which entries may have arrived by earlier attempts."""
    outcome = SendOutcome([], [], [], None)
    for entry, might, reply in zip(entries, before, replies, strict=True):
        if not isinstance(reply, Exception):
            outcome.confirmed.append(entry)
            continue
        outcome = outcome._replace(error=type(reply).__name__)
        if isinstance(reply, ResponseError | AuthenticationError):  # so this attempt has not added it
            entry.may_have_arrived = might
        if isinstance(reply, ResponseError) and not _passes(reply):
            outcome.refused.append(entry)
            continue
        outcome.left.append(entry)
    return outcome


def _passes(error: Exception) -> bool:
    """Return True if a later attempt may succeed."""
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_PREFIXES)


def client_of(address: Address, timeout: float) -> Any:
    """Return a client that never retries by itself, since the publisher does.

    Args:
        address: address of the servers; its options win over the arguments here.
        timeout: seconds for a connection, and for each read and write.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    if address.mode == "standalone":
        return Redis.from_url(
            address.urls[0],
            **options,
            retry_on_error=[],
            single_connection_client=True,
            health_check_interval=0,
        )
    options |= parse_url(address.urls[0])  # type: ignore[no-untyped-call] # redis-py
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    for name in ("host", "port", "db") if address.mode == "cluster" else ("host", "port"):
        options.pop(name, None)
    if address.mode == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
    shared = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl", "retry"))}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        address.hosts, sentinel_kwargs={**shared, **address.sentinel_login}, **options
    )
    # Each new connection looks up the master, and a failure closes the connection.
    return sentinel.master_for(address.service)  # type: ignore[no-untyped-call]
