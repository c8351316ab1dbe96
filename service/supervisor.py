"""Supervise several processes: start them, restart those that end, and stop all together.

- A process that ends without a request to stop is restarted after a pause. The pause doubles with each end
  after a short life, and is reset after a long life.
- A process with wrong settings would fail again. So all processes are stopped, and the supervisor ends with
  the same exit code.
- SIGHUP is passed on, so that each process reloads its files, unless the terminal was closed.
- The first other signal is passed on as SIGTERM, and the processes have a limited time to end. A second
  signal, or the end of that time, kills the remaining ones.
- Each process has a process group of its own, so that Ctrl-C on a terminal reaches only the parent. Its
  standard input is a pipe from the parent, which closes when the parent has ended for any reason. The process
  then stops (`when_parent_is_gone`).

The processes inherit the parent's standard error, so their log lines do not pass through the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service import logs
from service.terminal import Terminal

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Sequence

SETTINGS_ARE_WRONG: Final = 2
"""The exit code of a process with wrong settings."""

_DID_NOT_END_WELL: Final = 1

LEAVING: Final = 5.0
"""Seconds that a worker may take after its shutdown timeout to leave the consumer group and to end."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STDIN = 0


@dataclass(frozen=True)
class Pauses:
    """The pauses before a process is restarted, in seconds."""

    first: float = 0.5
    longest: float = 30.0
    long_life: float = 10.0
    """Minimum life of a process after which its end is independent of earlier ones."""

    def after(self, short_lives: int) -> float:
        """Return the pause after a number of consecutive short lives, with jitter to spread the restarts."""
        doubled = self.first * 2.0 ** min(short_lives, 30)
        return min(doubled, self.longest) * random.uniform(0.5, 1)  # noqa: S311 - not a secret


class Supervisor:
    """Keeps `count` processes running until a signal or `stop`.

    Args:
        count: number of processes.
        command: function from a process's number (1, 2, …) to its command line.
        time_to_end: seconds that a process may take to stop; after that it is killed.
        pauses: pauses before a restart.
        reload: is called on SIGHUP, before it is passed on.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[int], Sequence[str]],
        time_to_end: float,
        pauses: Pauses | None = None,
        *,
        reload: Callable[[], object] = lambda: None,
    ) -> None:
        self._numbers = range(1, count + 1)
        self._command = command
        self._time_to_end = time_to_end
        self._pauses = pauses or Pauses()
        self._reload = reload
        self._terminal = Terminal()
        self._running: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._lifeline = -1

    async def run(self) -> int:
        """Run until a signal, or until a process finds its settings wrong; return the exit code.

        The code is 0 if all processes ended well, 1 if one did not, 2 if the settings are wrong, and 128 plus
        the signal's number after a second signal.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        self._lifeline, parents_end = os.pipe()  # never written to; it closes with this process
        try:
            keeping = [asyncio.create_task(self._keep_running(number)) for number in self._numbers]
            killing = asyncio.create_task(self._kill_in_time())
            await asyncio.gather(*keeping)
            killing.cancel()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            self._kill()
            os.close(parents_end)
            os.close(self._lifeline)
        return self._exit_code

    def stop(self) -> None:
        """Ask all processes to stop, and start no further ones."""
        self._stopping.set()
        for process in self._running.values():
            _send(process, signal.SIGTERM)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and not self._terminal.is_closed:
            self._reload()
            for process in self._running.values():
                _send(process, signal.SIGHUP)
            return
        if not self._stopping.is_set():
            self.stop()
            return
        self._exit_code = 128 + number
        self._kill()

    async def _keep_running(self, number: int) -> None:
        """Run a process and its successors, with pauses between them."""
        loop, short_lives = asyncio.get_running_loop(), 0
        while not self._stopping.is_set():
            began = loop.time()
            ended = await self._run_once(number)
            if self._stopping.is_set():
                return
            if loop.time() - began >= self._pauses.long_life:
                short_lives = 0
            pause = self._pauses.after(short_lives)
            short_lives += 1
            logs.logger().warning(
                "process ended, restarting", process=number, ended=ended, pause=round(pause, 2)
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_once(self, number: int) -> str:
        """Start a process and wait for its end; return how it ended, as a phrase for the log."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(number), stdin=self._lifeline, process_group=0
            )
        except OSError as error:  # temporary: no memory or no process ids left
            return f"not started: {error.strerror}"
        self._running[number] = process
        logs.logger().info("process started", process=number, pid=process.pid)
        if self._stopping.is_set():  # stopped while the process was starting
            _send(process, signal.SIGTERM)
        code = await process.wait()
        del self._running[number]
        if self._stopping.is_set():
            self._note_end(number, code)
        elif code == SETTINGS_ARE_WRONG:
            self._exit_code = code
            self.stop()
        return _how(code)

    def _note_end(self, number: int, code: int) -> None:
        """Record a process that did not end well. SIGTERM may kill one that has no handler for it yet."""
        if code not in {0, -signal.SIGTERM}:
            self._exit_code = self._exit_code or _DID_NOT_END_WELL
            logs.logger().error("process failed", process=number, ended=_how(code))

    async def _kill_in_time(self) -> None:
        await self._stopping.wait()
        await asyncio.sleep(self._time_to_end)
        self._kill()

    def _kill(self) -> None:
        for process in self._running.values():
            _send(process, signal.SIGKILL)


def when_parent_is_gone(do: Callable[[], object]) -> None:
    """Call `do` once when the supervisor has ended; to be used in the event loop of a supervised process."""
    loop = asyncio.get_running_loop()

    def closed() -> None:
        loop.remove_reader(_STDIN)
        do()

    loop.add_reader(_STDIN, closed)


def _send(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _how(code: int) -> str:
    """Return how a process ended, as a phrase such as `exit code 1` or `SIGKILL`."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
