"""Choose ports for servers, so that no other program gets them first.

A socket stays bound to the port and never listens. Linux assigns such a port neither to a program that asks
for any port nor to an outgoing connection. It allows a server to listen there, repeatedly, if the server sets
SO_REUSEADDR, as Redis and Valkey do. Other systems would not allow that, so there the port is only known to
have been free.
"""

from __future__ import annotations

import atexit
import socket
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST: Final = "127.0.0.1"


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a free port, reserved for the duration of the block."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((HOST, 0))
        port = int(reservation.getsockname()[1])
        if sys.platform != "linux":
            reservation.close()
        yield port


def free_port() -> int:
    """Return a free port, reserved while this process lives."""
    reservations = ExitStack()
    atexit.register(reservations.close)
    return reservations.enter_context(reserved_port())
