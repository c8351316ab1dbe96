"""Processes of a competitor: started, observed and killed by their handles."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import psutil

from bench.errors import BenchError
from bench.ground import wait

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from bench.competitors import Competitor
    from bench.ground import Ground

_ROOT = Path(__file__).parents[1]
_STARTS_WITHIN = 60.0
_LOG_TAIL = 2000


class Workers:
    """The processes of one competitor, which run while the `with` block lasts.

    Args:
        competitor: competitor to run.
        place: server that it works on.
        number: number of processes.
        environment: variables to set in addition to server, prefix and log.
    """

    def __init__(
        self,
        competitor: Competitor,
        place: Ground,
        number: int = 1,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._competitor = competitor
        self._place = place
        self._number = number
        self._environment = environment
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit

    def __enter__(self) -> Self:
        # Without its compiled modules, a worker would take seconds more to start.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("DELTALOOM_") and name != "PYTHONDONTWRITEBYTECODE"
        }
        environment |= {
            "DELTALOOM_REDIS_URL": self._place.url,
            "DELTALOOM_PREFIX": self._place.names.prefix,
            "DELTALOOM_LOG_LEVEL": "warning",
            "DELTALOOM_LOG_FORMAT": "json",
            **self._environment,
        }
        for _ in range(self._number):
            process = subprocess.Popen(  # noqa: S603 - our own programs, named in a table
                self._competitor.command,
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
            self._processes.append(process)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Kill at once: the measurement is over, and a worker that is asked to stop may wait for a read.
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._log.close()

    def wait_until_reading(self) -> None:
        """Wait until all processes wait for entries."""

        def all_read() -> bool:
            self.check()
            return self._place.reading() >= self._number

        wait(all_read, _STARTS_WITHIN, f"{self._competitor.name} reads the input")

    def check(self) -> None:
        """Check that all processes run.

        Raises:
            BenchError: a process has ended; the message has the end of the log.
        """
        for process in self._processes:
            if process.poll() is not None:
                raise BenchError(
                    f"{self._competitor.name} ended, exit code {process.returncode}: {self.log_tail()}"
                )

    def log_tail(self) -> str:
        """Return the end of the processes' log."""
        self._log.seek(0)
        return self._log.read()[-_LOG_TAIL:].decode(errors="replace")

    def cpu_seconds(self) -> float:
        """Return the processor time that all processes have used, in seconds."""
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)

    def rss(self) -> int:
        """Return the memory of all processes, in bytes."""
        return sum(psutil.Process(process.pid).memory_info().rss for process in self._processes)
