"""The folder of an embedded server: its data, its lock, and the port and password of the latest server.

Only the owner may read it. A lock keeps a second server out, which would corrupt the append-only file.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Final

from embedded import EmbeddedServerError
from embedded.free_ports import HOST

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD_FILE: Final = "password"  # noqa: S105 - the name of a file
CONFIG_FILE: Final = "server.conf"
LOG_FILE: Final = "server.log"
_PORT_FILE, _LOCK_FILE = "port", "lock"


class DataFolder:
    """A folder for one server at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def secure(self) -> None:
        """Create the folder if necessary, and deny access to other users.

        Others may have had write access to an existing folder, so symbolic links in it are rejected.

        Raises:
            EmbeddedServerError: the folder is not the user's own, or has a symbolic link in it.
            OSError: the folder cannot be created or read.
        """
        if self.path.is_symlink():
            raise _refused(self.path, "is a symbolic link: name the folder that it leads to")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(folder).st_uid != os.geteuid():
                raise _refused(self.path, "belongs to another user: name a folder of your own")
            os.fchmod(folder, 0o700)
        finally:
            os.close(folder)
        for found in self.path.rglob("*"):
            if found.is_symlink():
                raise _refused(found, "is a symbolic link: remove it")

    def lock(self) -> None:
        """Keep other processes out until `unlock`.

        Raises:
            EmbeddedServerError: another process uses the folder; the message has its id and address.
        """
        import fcntl  # noqa: PLC0415 - not on Windows, where there is no embedded server either

        self._lock = (self.path / _LOCK_FILE).open("a+", encoding="ascii")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            port = self.port()
            where = f" at redis://{HOST}:{port}" if port else ""
            raise EmbeddedServerError(
                f"another process (id {owner}) already runs a server in {self.path}{where}: "
                "use that one, stop it, or choose another folder"
            ) from error
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def unlock(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def port(self) -> int | None:
        """Return the port of the latest server, or None if there is none on record."""
        try:
            return int((self.path / _PORT_FILE).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def write_port(self, port: int) -> None:
        """Record the port for the next server."""
        (self.path / _PORT_FILE).write_text(f"{port}\n", encoding="ascii")

    def password(self) -> str:
        """Return the password of the latest server, or an empty string if there is none on record."""
        try:
            return (self.path / PASSWORD_FILE).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def write_password(self, password: str) -> None:
        """Write the password to files, since other users could read a command line."""
        for name, content in ((PASSWORD_FILE, ""), (CONFIG_FILE, "requirepass ")):
            file = self.path / name
            file.touch(mode=0o600)
            file.chmod(0o600)
            file.write_text(f"{content}{password}\n", encoding="ascii")

    def last_log_line(self) -> str:
        """Return the last line of the server's log, or `nothing`."""
        try:
            lines = (self.path / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return "nothing"
        return lines[-1] if lines else "nothing"


def _refused(path: Path, why: str) -> EmbeddedServerError:
    return EmbeddedServerError(f"the embedded server cannot use {path}: it {why}")
