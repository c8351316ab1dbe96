"""Several worker processes under one: started, started again when they end, and stopped together.

- One that ends without having been told to is started again after a pause. The pause doubles with every end
  that follows a short life, and is the first one again after a long life.
- One that finds its settings wrong would find them wrong again: all are stopped, and its exit code is ours.
- A first signal is passed on as SIGTERM, once, and all have some time to end. A second signal, or the end of
  that time, kills who is left.
- Each has a process group of its own, so Ctrl-C on a terminal reaches the parent alone, and a pipe from the
  parent as its standard input: when that closes, the parent is gone, however that came about, and it stops
  (`when_parent_is_gone`).

What they log goes where the parent's own lines go, and does not pass through it.
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

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Sequence

SETTINGS_ARE_WRONG: Final = 2
"""The exit code of a process whose settings are wrong."""

_DID_NOT_END_WELL: Final = 1

LEAVING: Final = 5.0
"""Seconds that a worker may take beyond its shutdown timeout: to leave the consumer group, and to end."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STDIN = 0


@dataclass(frozen=True)
class Pauses:
    """How long to wait before a process is started again; in seconds."""

    first: float = 0.5
    longest: float = 30.0
    long_life: float = 10.0
    """Whoever has lived so long was well: what ended it now has nothing to do with its last end."""

    def after(self, short_lives: int) -> float:
        """The pause after so many short lives in a row; jittered, lest all come back at one moment."""
        doubled = self.first * 2.0 ** min(short_lives, 30)
        return min(doubled, self.longest) * random.uniform(0.5, 1)  # noqa: S311 - not a secret


class Supervisor:
    """Keeps `count` processes running until it is told to stop.

    Args:
        count: how many.
        command: what to run as process number 1, 2, …
        time_to_end: seconds that one takes to stop, at most.
        pauses: before one is started again.
        reloads: SIGHUP is passed on, for them to read their files again; else it stops them.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[int], Sequence[str]],
        time_to_end: float,
        pauses: Pauses | None = None,
        *,
        reloads: bool = False,
    ) -> None:
        self._numbers = range(1, count + 1)
        self._command = command
        self._time_to_end = time_to_end
        self._pauses = pauses or Pauses()
        self._reloads = reloads
        self._running: dict[int, Process] = {}
        self._told = asyncio.Event()
        self._exit_code = 0
        self._lifeline = -1

    async def run(self) -> int:
        """Run until a signal, or until one finds its settings wrong; the exit code.

        That is 0 if all ended well, 1 if one did not, 2 if the settings are wrong, and 128 and its number
        after a second signal.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        self._lifeline, parents_end = os.pipe()  # nobody writes; it closes with this process
        try:
            keeping = [asyncio.create_task(self._keep(number)) for number in self._numbers]
            telling = asyncio.create_task(self._kill_in_time())
            await asyncio.gather(*keeping)
            telling.cancel()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            self._kill()
            os.close(parents_end)
            os.close(self._lifeline)
        return self._exit_code

    def stop(self) -> None:
        """Tell all to stop; none is started any more."""
        self._told.set()
        for process in self._running.values():
            _send(process, signal.SIGTERM)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and self._reloads:
            for process in self._running.values():
                _send(process, signal.SIGHUP)
            return
        if not self._told.is_set():
            self.stop()
            return
        self._exit_code = 128 + number
        self._kill()

    async def _keep(self, number: int) -> None:
        """One process, its successors and the pauses between them."""
        loop, short_lives = asyncio.get_running_loop(), 0
        while not self._told.is_set():
            began = loop.time()
            ended = await self._live(number)
            if self._told.is_set():
                return
            if loop.time() - began >= self._pauses.long_life:
                short_lives = 0
            pause = self._pauses.after(short_lives)
            short_lives += 1
            logs.logger().warning(
                "process ended, starting it again", process=number, ended=ended, pause=round(pause, 2)
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), pause)

    async def _live(self, number: int) -> str:
        """Start one and wait for its end, which is told."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(number), stdin=self._lifeline, process_group=0
            )
        except OSError as error:  # no memory, or no process left: for now
            return f"not started: {error.strerror}"
        self._running[number] = process
        logs.logger().info("process started", process=number, pid=process.pid)
        if self._told.is_set():  # while it was started
            _send(process, signal.SIGTERM)
        code = await process.wait()
        del self._running[number]
        if self._told.is_set():
            self._note_end(number, code)
        elif code == SETTINGS_ARE_WRONG:
            self._exit_code = code
            self.stop()
        return _how(code)

    def _note_end(self, number: int, code: int) -> None:
        """Whether one has done as it was told. SIGTERM ends it too, if it was too young to know better."""
        if code not in {0, -signal.SIGTERM}:
            self._exit_code = self._exit_code or _DID_NOT_END_WELL
            logs.logger().error("process did not end well", process=number, ended=_how(code))

    async def _kill_in_time(self) -> None:
        await self._told.wait()
        await asyncio.sleep(self._time_to_end)
        self._kill()

    def _kill(self) -> None:
        for process in self._running.values():
            _send(process, signal.SIGKILL)


def when_parent_is_gone(do: Callable[[], object]) -> None:
    """In a process of a supervisor, in its event loop: do this once when the supervisor is gone."""
    loop = asyncio.get_running_loop()

    def closed() -> None:
        loop.remove_reader(_STDIN)
        do()

    loop.add_reader(_STDIN, closed)


def _send(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _how(code: int) -> str:
    """How a process ended, for a person."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
