"""Run the command `deltaloom` in the test's process, in a process of its own, or as a fork."""

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
    """Run the command to its end in this process, as `python -m service` would run.

    This takes a tenth of the time of a new process; `test_processes.py` compares the two. Use
    `deltaloom_process` or `running` for a command that handles signals.
    """
    return in_process.run(arguments, environment() if env is None else env, stdin, cwd, TIMEOUT)


def deltaloom_process(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in a process of its own, with pipes as stdout and stderr."""
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
    """A running command and its output so far."""

    def __init__(self, process: ForkedProcess, folder: Path) -> None:
        self.process = process
        self._folder = folder

    @property
    def stdout(self) -> str:
        """Return the output on stdout so far."""
        return (self._folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """Return the output on stderr so far."""
        return (self._folder / "stderr").read_text()

    def end(self, signal_number: int) -> int:
        """Send the command a signal and wait for its end. Return its exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait_blocking(TIMEOUT)


@contextmanager
def running(*arguments: str, env: Mapping[str, str], cwd: Path | None = None) -> Iterator[Running]:
    """Run the command in parallel to the test, and kill it at the end of the block if it still runs."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = fork_server.start(*arguments, env=env, cwd=cwd, stdout=stdout, stderr=stderr)
        try:
            yield Running(process, folder)
        finally:
            process.kill()
            process.wait_blocking(TIMEOUT)
