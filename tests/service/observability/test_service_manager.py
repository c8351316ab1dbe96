"""Test the messages to systemd, which a socket of the test receives."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from service.observability.service_manager import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["file", "abstract"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """Yield a socket, and its address as systemd writes it."""
    abstract = f"@deltaloom-test-{os.getpid()}"
    address = abstract if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(5)
        yield sock, address


def test_ready_alive_stopping(receiver: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is extended while Redis is away; signs of life come while nothing is stuck."""
    sock, address = receiver
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"})
    manager.turn(started=False, not_ready=["a"], stuck=[])
    assert sock.recv(999) == b"EXTEND_TIMEOUT_USEC=30000000\nSTATUS=a\nWATCHDOG=1"
    manager.turn(started=True, not_ready=[], stuck=[])
    assert sock.recv(999) == b"READY=1\nSTATUS=serving"
    now = 105.0
    manager.turn(started=True, not_ready=[], stuck=["b"])
    assert sock.recv(999) == b"STATUS=b"
    manager.turn(started=True, not_ready=[], stuck=[])
    assert sock.recv(999) == b"STATUS=serving\nWATCHDOG=1"
    manager.stopping()
    manager.stopping()
    assert sock.recv(999) == b"STOPPING=1\nSTATUS=stopping"
    sock.setblocking(False)  # noqa: FBT003 - the parameter has no name
    with pytest.raises(BlockingIOError):
        sock.recv(999)


def test_without_a_manager() -> None:
    """Neither a missing address nor one where nobody listens is an error."""
    for environment in ({}, {"NOTIFY_SOCKET": "/nowhere"}):
        ServiceManager(environment).turn(started=True, not_ready=[], stuck=[])
