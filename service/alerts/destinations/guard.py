"""Keeping other people's code from connecting to addresses that are not public.

A library that brings its own connections cannot be handed ours. But Python reports each `connect` to the
audit hooks before it is made, with the address that a name was resolved to, and a hook may forbid it (PEP
578). Inside `guarded` the hook here judges those addresses as `service/alerts/destinations/addresses.py`
does.

It sees the sockets of Python's own module, in the thread that is guarded, which is where a library in pure
Python connects that waits for its answers. So that none gets away, no thread can be started inside (from
Python 3.12 on; 3.11 does not report it). What it cannot see is a library in C that calls
the system itself.
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
    """What is allowed, and what was asked for in vain."""

    allowed: Sequence[IPv4Network | IPv6Network]
    refused: list[str] = field(default_factory=list)
    """A line for each."""


_guard: ContextVar[Guard | None] = ContextVar("guard", default=None)


@contextmanager
def guarded(allowed: Sequence[IPv4Network | IPv6Network]) -> Iterator[Guard]:
    """In this block, and in this thread or task, only public addresses and these may be connected to."""
    _hook_in()
    guard = Guard(allowed)
    token = _guard.set(guard)
    try:
        yield guard
    finally:
        _guard.reset(token)


def _connects(arguments: tuple[Any, ...], allowed: Sequence[IPv4Network | IPv6Network]) -> None:
    address = arguments[1]
    if address is None:  # a datagram on a socket that is connected, and so was judged
        return
    if not isinstance(address, tuple):
        raise addresses.AddressNotAllowedError(
            "a socket of this machine; only the network may be connected to"
        )
    try:
        addresses.check(address[0], allowed)
    except ValueError:  # a name: the system would look it up once more, and nobody would see what it found
        raise addresses.AddressNotAllowedError("a name where an address is expected") from None


def _starts_a_thread(_arguments: tuple[Any, ...], _allowed: Sequence[IPv4Network | IPv6Network]) -> None:
    raise addresses.AddressNotAllowedError("a thread of its own, whose connections nobody would see")


_JUDGED: dict[str, Judge] = {
    "socket.connect": _connects,
    "socket.sendto": _connects,
    "socket.sendmsg": _connects,
    "_thread.start_new_thread": _starts_a_thread,  # Python 3.12
    "_thread.start_joinable_thread": _starts_a_thread,  # and later
}

_hooked: list[bool] = []


def _on_event(
    event: str, arguments: tuple[Any, ...], judged: Mapping[str, Judge] = MappingProxyType(_JUDGED)
) -> None:
    """Judge an event. The table is a default, since an interpreter that ends takes globals away first."""
    if event in judged and (guard := _guard.get()) is not None:
        try:
            judged[event](arguments, guard.allowed)
        except addresses.AddressNotAllowedError as error:
            guard.refused.append(str(error))
            raise


def _hook_in() -> None:
    """Once for the process: a hook cannot be taken out again."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_on_event)
