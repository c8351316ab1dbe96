"""The command `deltaloom`: run in this process, or as a real one."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests import fork_server
from tests.service.cli import in_process
from tests.service.cli.environment import environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.fork_server import ForkedProcess

__all__ = ["COMMAND", "TIMEOUT", "Running", "deltaloom", "deltaloom_process", "environment", "running"]

COMMAND = (sys.executable, "-W", "error", "-m", "service")
TIMEOUT = 60


def deltaloom(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in this process, as `python -m service` runs it in one of its own.

    It takes a tenth of the time. `test_processes.py` compares the two. A command that handles signals
    needs `deltaloom_process` or `running`.
    """
    return in_process.run(arguments, environment() if env is None else env, stdin, cwd, TIMEOUT)


def deltaloom_process(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in a process of its own; stdout and stderr are pipes."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment() if env is None else env,
        input=stdin,
        cwd=cwd,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """A command that runs, and what it has said so far."""

    def __init__(self, process: ForkedProcess, folder: Path) -> None:
        self.process = process
        self._folder = folder

    @property
    def stdout(self) -> str:
        """What it has written to stdout."""
        return (self._folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has written to stderr."""
        return (self._folder / "stderr").read_text()

    def end(self, signal_number: int) -> int:
        """Send it a signal and wait; returns its exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait_blocking(TIMEOUT)


@contextmanager
def running(*arguments: str, env: Mapping[str, str], cwd: Path | None = None) -> Iterator[Running]:
    """Run the command beside the test; it is killed at the end if it still runs."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = fork_server.start(*arguments, env=env, cwd=cwd, stdout=stdout, stderr=stderr)
        try:
            yield Running(process, folder)
        finally:
            process.kill()
            process.wait_blocking(TIMEOUT)
