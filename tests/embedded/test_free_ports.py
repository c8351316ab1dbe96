"""Test the choice of ports: no two servers get the same one."""

from __future__ import annotations

import socket
import sys

import pytest

from embedded.free_ports import HOST, free_port


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a server listen where a socket is bound")
def test_a_free_port_is_for_one_server_only() -> None:
    """Otherwise two tests that run at the same time could start servers on one port."""
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, port))
    for _ in range(2):
        with socket.create_server((HOST, port)):
            pass
