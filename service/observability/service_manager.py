"""Tell systemd, or another service manager with its protocol, that this process is ready, alive, or stopping.

The protocol is one datagram per message to the socket in `NOTIFY_SOCKET` (sd_notify(3)).
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EXTENSION_USEC = 30_000_000
"""Microseconds by which each message extends the start, while a process waits for Redis."""


class ServiceManager:
    """The service manager that has started this process, if any.

    Args:
        environment: environment variables; `NOTIFY_SOCKET` begins with @ for an abstract address.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        usec = environment.get("WATCHDOG_USEC", "")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval = int(usec) / 2_000_000 if usec.isdecimal() and for_us else None
        """Seconds between two signs of life; None if none is expected."""
        self._next = 0.0
        self._started = self._stopping = False
        self._status = ""

    def turn(self, *, started: bool, not_ready: Sequence[str], stuck: Sequence[str]) -> None:
        """Send what has changed since the last turn, and a sign of life if it is due and nothing is stuck."""
        if not self._address or self._stopping:
            return
        lines = []
        if started and not self._started:
            self._started = True
            lines.append("READY=1")
        elif not started and not stuck:
            lines.append(f"EXTEND_TIMEOUT_USEC={_EXTENSION_USEC}")
        status = "; ".join(stuck or not_ready) or "serving"
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        now = time.monotonic()
        if self._interval is not None and not stuck and now >= self._next:
            self._next = now + self._interval - 0.5  # turns are a second apart
            lines.append("WATCHDOG=1")
        self._send(lines)

    def stopping(self) -> None:
        """Say once that the process stops."""
        if self._address and not self._stopping:
            self._stopping = True
            self._send(["STOPPING=1", "STATUS=stopping"])

    def _send(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # noqa: FBT003 - the parameter has no name
            sender.sendto("\n".join(lines).encode(), self._address)
