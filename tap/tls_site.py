"""Accept connections over TLS, and count each from its first byte on.

asyncio, and so aiohttp, reports a connection to a server only after its handshake. So the number of clients
that never finish theirs would be unlimited.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from tap.limited_server import LimitedServer

if TYPE_CHECKING:
    import ssl

_BACKLOG: Final = 1024
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a shortage of descriptors or memory."""
_PAUSE: Final = 1.0
"""Seconds until the next attempt if descriptors or memory are short."""


class TlsListener:
    """Listening sockets, the tasks that accept from them, and the handshakes under way.

    Args:
        sockets: the bound sockets.
        server: serves the connections, and limits them.
        tls: the certificate.
        handshake_timeout: seconds in which a handshake has to end.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        server: LimitedServer,
        tls: ssl.SSLContext,
        handshake_timeout: float,
    ) -> None:
        self.sockets = sockets
        self._server = server
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._tasks = {asyncio.create_task(self._accept(each)) for each in sockets}

    def close(self) -> None:
        """Accept no more connections, and break handshakes off."""
        for task in self._tasks:
            task.cancel()
        for each in self.sockets:
            each.close()
        self.sockets = []

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # the client has left already, or descriptors or memory are short
                await asyncio.sleep(_PAUSE if error.errno in _SHORTAGES else 0)
                continue
            if not self._server.has_room():
                connection.close()
                continue
            task = asyncio.create_task(self._shake_hands(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, connection: socket.socket) -> None:
        handler = self._server()
        self._server.handshakes.add(handler)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: handler, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_timeout
            )
        except OSError:  # the client speaks no TLS, is too late, or has left
            connection.close()
        finally:
            self._server.handshakes.discard(handler)


class TlsSite(web.BaseSite):
    """An address that serves TLS.

    Args:
        runner: runs a `LimitedServer`.
        host: name or address of the interface.
        port: port; 0 for a free one.
        tls: the certificate.
        handshake_timeout: seconds in which a handshake has to end.
        reuse_port: True if other processes listen at the same address.
    """

    __slots__ = ("_handshake_timeout", "_host", "_port", "_reuse_port")

    def __init__(
        self,
        runner: web.ServerRunner,
        host: str,
        port: int,
        tls: ssl.SSLContext,
        *,
        handshake_timeout: float,
        reuse_port: bool = False,
    ) -> None:
        super().__init__(runner, ssl_context=tls, backlog=_BACKLOG)
        self._host = host
        self._port = port
        self._handshake_timeout = handshake_timeout
        self._reuse_port = reuse_port

    @property
    def name(self) -> str:
        """The URL."""
        return f"https://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen at all addresses of the host.

        Raises:
            OSError: an address cannot be used.
        """
        await super().start()
        server, tls = self._runner.server, self._ssl_context
        assert isinstance(server, LimitedServer)  # noqa: S101 - documents an invariant
        assert tls is not None  # noqa: S101 - the same
        found = await asyncio.get_running_loop().getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets: list[socket.socket] = []
        try:
            sockets.extend(map(self._bound, dict.fromkeys(found)))
        except OSError:
            for each in sockets:
                each.close()
            raise
        listener = TlsListener(sockets, server, tls, self._handshake_timeout)
        self._server = cast("asyncio.AbstractServer", listener)  # aiohttp uses `close` and `sockets`

    def _bound(self, address: tuple[Any, ...]) -> socket.socket:
        """Return a socket that listens at an address, as `getaddrinfo` gives it."""
        family, _, _, _, place = address
        listening = socket.create_server(
            place[:2], family=family, backlog=_BACKLOG, reuse_port=self._reuse_port
        )
        listening.settimeout(0)
        return listening
