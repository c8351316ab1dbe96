"""Test how `deltaloom remove` finds out what is at work."""

from __future__ import annotations

from typing import Any

from service.cli.remove import ALIVE_MS, _running


class Server:
    """A server with two consumers of one input; another program chose their names."""

    async def streams(self, _kind: str) -> list[str]:
        """Return the input."""
        return ["deltaloom:deltas"]

    async def leases(self) -> list[str]:
        """Return the lease of a relay."""
        return ["deltaloom:relay:on-call:lease"]

    async def xinfo_consumers(self, _stream: str, _group: str) -> list[dict[str, Any]]:
        """Return one consumer that reads, and one that has stopped."""
        return [{"name": b"\xff", "idle": 0}, {"name": b"stopped", "idle": ALIVE_MS}]


async def test_a_name_that_is_not_utf8_still_counts() -> None:
    """Any client may choose the name of a consumer: the command must refuse, and not end in a traceback."""
    server: Any = Server()
    assert await _running(server, server) == ["worker \ufffd", "relay to on-call"]
