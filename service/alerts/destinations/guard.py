"""Prevent third-party code from connecting to addresses that are not public.

A library that opens its own connections cannot use ours. But Python reports each `connect` to the audit hooks
in advance, with the resolved address, and a hook may forbid it (PEP 578). Inside `guarded`, the hook of this
module checks those addresses as `service/alerts/destinations/addresses.py` does.

The hook covers sockets of Python's own module in the guarded thread, where a blocking library in pure Python
connects. To prevent escapes, no thread can be started inside the block (from Python 3.12 on; 3.11 does not
report it). The hook cannot see a C library that calls the system directly.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from service.alerts.destinations import addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    Judge = Callable[[tuple[Any, ...], Sequence[IPv4Network | IPv6Network]], None]


@dataclass(slots=True)
class Guard:
    """The allowed networks, and the connections that were refused."""

    allowed: Sequence[IPv4Network | IPv6Network]
    refused: list[str] = field(default_factory=list)
    """Reason of each refusal, in one line."""


_guard: ContextVar[Guard | None] = ContextVar("guard", default=None)


@contextmanager
def guarded(allowed: Sequence[IPv4Network | IPv6Network]) -> Iterator[Guard]:
    """Allow only connections to public addresses and these networks, in this block and thread or task."""
    _hook_in()
    guard = Guard(allowed)
    token = _guard.set(guard)
    try:
        yield guard
    finally:
        _guard.reset(token)


# Coverage cannot see what follows: the interpreter runs audit hooks without tracing.


def _connects(  # pragma: no cover
    arguments: tuple[Any, ...], allowed: Sequence[IPv4Network | IPv6Network]
) -> None:
    address = arguments[1]
    if address is None:  # a datagram on a connected socket, checked when it was connected
        return
    if not isinstance(address, tuple):
        raise addresses.AddressNotAllowedError(
            "a socket of this machine; only the network may be connected to"
        )
    try:
        addresses.check(address[0], allowed)
    except ValueError:  # a name, whose resolution by the system could not be checked
        raise addresses.AddressNotAllowedError("a name where an address is expected") from None


def _starts_a_thread(  # pragma: no cover
    _arguments: tuple[Any, ...], _allowed: Sequence[IPv4Network | IPv6Network]
) -> None:
    raise addresses.AddressNotAllowedError("a thread of its own, whose connections cannot be checked")


_JUDGED: dict[str, Judge] = {
    "socket.connect": _connects,
    "socket.sendto": _connects,
    "socket.sendmsg": _connects,
    "_thread.start_new_thread": _starts_a_thread,  # Python 3.12
    "_thread.start_joinable_thread": _starts_a_thread,  # and later
}

_hooked: list[bool] = []


def _on_event(  # pragma: no cover
    event: str, arguments: tuple[Any, ...], judged: Mapping[str, Judge] = MappingProxyType(_JUDGED)
) -> None:
    """Check an audit event. The table is a default argument: an exiting interpreter clears globals first."""
    if event in judged and (guard := _guard.get()) is not None:
        try:
            judged[event](arguments, guard.allowed)
        except addresses.AddressNotAllowedError as error:
            guard.refused.append(str(error))
            raise


def _hook_in() -> None:
    """Install the hook once per process; hooks cannot be removed."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_on_event)
