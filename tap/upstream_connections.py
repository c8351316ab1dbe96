"""The pool of connections to upstreams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_IDLE_SECONDS: Final = 4
"""Seconds for which an idle connection is kept.

Many servers close an idle connection after 5 s (uvicorn and Node by default). A request that is sent over it
at this moment fails.
"""


class UpstreamConnections(aiohttp.TCPConnector):
    """A pool that never reuses a connection over which an upstream sent bytes that nobody asked for.

    aiohttp (3.14) would take such bytes as the answer to the next request, which may be another client's.
    """

    def __init__(self) -> None:
        # The limit of the clients' connections is enough.
        super().__init__(limit=0, keepalive_timeout=_IDLE_SECONDS)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None
