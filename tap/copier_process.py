"""Start the copier's process, start it again if it ends, and add up its figures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from service import logs
from tap.copy_frames import HEAD, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap.copy_frames import CopierSettings
    from tap.copy_pipe import CopyPipe

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds until the process is started again: at first, and at most."""
LONG_LIFE: Final = 10.0
"""Seconds after which a process has run well, so that the pause before the next one is short again."""

READ_BYTES: Final = 64 * 1024
"""Maximum bytes of reports that one read returns."""


def command_of(descriptor: int) -> Sequence[str]:
    """Return the command line of a copier that reads from this descriptor."""
    return (sys.executable, "-m", "tap.copier", str(descriptor))


class CopierProcess:
    """Keeps the process running until it is stopped.

    Args:
        pipe: sends to the process while there is one.
        settings: settings of the process.
    """

    def __init__(self, pipe: CopyPipe, settings: CopierSettings) -> None:
        self._pipe = pipe
        payload = json.dumps(settings).encode()
        self._first = HEAD.pack(0, SETTINGS, len(payload)) + payload
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._end: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._connected = asyncio.Event()
        self._earlier: list[dict[str, Any]] = []
        self._latest: dict[str, Any] = {}
        self._sent_before = 0
        """Bytes of bodies that went to earlier processes."""
        self.lost_bytes = 0
        """Bytes of bodies that went to processes and were never reported as taken, because they ended."""
        self.restarts = 0
        """Processes that ended without being asked to."""

    async def start(self) -> None:
        """Start the process, and wait until the pipe is connected to it."""
        self._keeping = asyncio.create_task(self._keep_running())
        await self._connected.wait()

    async def stop(self, within: float) -> None:
        """Let the process publish what it has, and wait for its end; kill it after `within` seconds."""
        self._stopping.set()
        if self._keeping is None:
            return
        try:
            async with asyncio.timeout(within):
                await self._pipe.idle.wait()
                if self._end is not None:
                    with contextlib.suppress(OSError):
                        self._end.shutdown(socket.SHUT_WR)
                await asyncio.shield(self._keeping)
        except TimeoutError:
            logs.logger().warning("copier killed, it did not end in time", seconds=within)
            self.kill()
            await self._keeping

    def figures(self) -> dict[str, Any]:
        """Return the sums of the figures of all processes so far."""
        total: dict[str, Any] = {}
        for report in [*self._earlier, self._latest]:
            for name, value in report.items():
                if isinstance(value, dict):
                    total[name] = dict(Counter(total.get(name, {})) + Counter(value))
                else:
                    total[name] = total.get(name, 0) + value
        return total

    async def _keep_running(self) -> None:
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            try:
                code = await self._run_once()
            except OSError as error:  # temporary: no memory, descriptors or process ids left
                code = None
                logs.logger().warning("copier not started", error=error.strerror)
                self._connected.set()
            if self._stopping.is_set():
                return
            self.restarts += 1
            pause = FIRST_PAUSE if loop.time() - began > LONG_LIFE else min(pause * 2, LONGEST_PAUSE)
            logs.logger().warning("copier ended, restarting", code=code, pause=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_once(self) -> int:
        """Run the process to its end, and return its exit code."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        ours.send(self._first)
        try:
            with theirs:
                self._process = process = await asyncio.create_subprocess_exec(
                    *command_of(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C on a terminal reaches the forwarder only
                )
            self._end = ours
            self._latest = {}
            self._pipe.connect(ours)
            self._connected.set()
            await self._read_reports(ours)
            return await process.wait()
        finally:
            self._pipe.disconnect()
            self._end = None
            self.kill()
            ours.close()
            self._close_books()

    def _close_books(self) -> None:
        """Count the bytes that the process did not report as taken, and the events that waited in it."""
        sent, report = self._pipe.sent_bytes - self._sent_before, self._latest
        self._sent_before += sent
        self.lost_bytes += sent - report.get("taken_bytes", 0)
        if report:
            dropped = Counter(report.get("dropped", {}))
            dropped["copier_gone"] += report.get("waiting", 0)
            ended = {"open": 0, "waiting": 0, "waiting_bytes": 0, "dropped": dict(+dropped)}
            self._earlier.append(report | ended)
            self._latest = {}

    async def _read_reports(self, end: socket.socket) -> None:
        """Read reports until the process has ended."""
        loop, held = asyncio.get_running_loop(), b""
        while True:
            try:
                data = await loop.sock_recv(end, READ_BYTES)
            except OSError:
                return
            if not data:
                return
            *lines, held = (held + data).split(b"\n")
            if lines:
                self._latest = json.loads(lines[-1])

    def kill(self) -> None:
        """Kill the process; unless the tap stops, another one is started."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
