"""Run the worker and the relay, each in a process of its own as in production."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import service
from service.settings import ENV_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

_STOPPED_WITHIN = 5.0
_IMPORTED_FROM = Path(service.__file__).parents[1]


class ServiceProcess:
    """A process of `deltaloom worker` or `deltaloom relay`, which runs within a `with` block.

    Args:
        command: sub-command, which is also the process's name, and its arguments.
        log: file for the process's output.
        settings: environment variables to set. `DELTALOOM_*` of this process are not inherited, so that the
            demo is the same everywhere.
    """

    def __init__(self, command: Sequence[str], log: Path, settings: Mapping[str, str]) -> None:
        self.name = command[0]
        self._command = command
        self._log = log
        own = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        self._environment = {**own, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._output = self._log.open("wb")
        self._process = subprocess.Popen(  # noqa: S603 - our own program, with arguments of our own
            [sys.executable, "-m", "service", *self._command],
            cwd=_IMPORTED_FROM,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._process is not None:
                _end(self._process)
        finally:
            if self._output is not None:
                self._output.close()

    def ask_to_stop(self) -> None:
        """Begin to stop, so that several processes stop concurrently; the end of the block waits."""
        if self._process is not None:
            self._process.terminate()

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; None while the process runs."""
        return None if self._process is None else self._process.poll()

    def log_tail(self, lines: int = 20) -> list[str]:
        """Return the last lines of the log."""
        return self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process; kill it if it does not end in time, or if the wait is interrupted."""
    process.terminate()
    try:
        process.wait(_STOPPED_WITHIN)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
