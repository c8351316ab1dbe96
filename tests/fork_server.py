"""Processes of `python -m service` that start within milliseconds.

Starting Python and importing the worker takes a second of CPU. A fork server does that once for each process
of the tests; each command is a fork of it. A fork has its own signals, exit code, environment, folder and
files, and can be killed, like any other process. `test_processes.py` compares forks with processes that were
started the usual way.

Theory of operation:

1. `start` sends a request with file descriptors over a socket: stdout, stderr and the status socket.
2. The server forks. The child takes the descriptors and returns from `_serve` with the command to run.
3. The server writes the child's id to the status socket, and its exit code when it has ended.
4. When the tests' process ends, its end of the request socket closes: the server kills its children and ends.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.service.cli.environment import ROOT, environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

_LONGEST_REQUEST = 150_000
_ENDS_WITHIN = 20.0


class ForkedProcess:
    """A command in a fork, with methods like those of `subprocess.Popen`; `wait` is a coroutine."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self._received = b""
        self._returncode: int | None = None
        while b"\n" not in self._received:
            self._read(None)
        self.pid = int(self._received.split(b"\n")[0])

    @property
    def returncode(self) -> int | None:
        """Return the exit code, or the negative number of the signal that ended it; None while it runs."""
        if self._returncode is None:
            self._read(0)
        return self._returncode

    def _read(self, timeout: float | None) -> None:
        if select.select([self._status], [], [], timeout)[0]:
            data = self._status.recv(100)
            assert data, "the fork server has ended"
            self._received += data
            lines = self._received.split(b"\n")
            if len(lines) > 2:
                self._returncode = int(lines[1])
                self._status.close()

    def send_signal(self, number: int) -> None:
        """Send a signal to the process if it runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)

    def wait_blocking(self, timeout: float) -> int:
        """Wait for the end of the process, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: the process has not ended in time.
        """
        if self._returncode is None:
            self._read(timeout)
        if self._returncode is None:
            raise subprocess.TimeoutExpired("deltaloom", timeout)
        return self._returncode

    async def wait(self) -> int:
        """Wait without a limit for the end of the process, and return its exit code."""
        await wait_until(lambda: self.returncode is not None, float("inf"), interval=0.01)
        assert self._returncode is not None
        return self._returncode


def start(
    *arguments: str,
    env: Mapping[str, str],
    stdout: IO[bytes] | None,
    stderr: IO[bytes],
    cwd: Path | None = None,
) -> ForkedProcess:
    """Start `python -m service` with these arguments and an empty stdin.

    `stdout=None` inherits that of the tests.
    """
    ours, theirs = socket.socketpair()
    request = {"arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd())}
    descriptors = [stdout.fileno() if stdout else 1, stderr.fileno(), theirs.fileno()]
    with theirs:
        socket.send_fds(_server(), [json.dumps(request).encode()], descriptors)
    return ForkedProcess(ours)


@cache
def _server() -> socket.socket:
    """Start the fork server of this process, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.fork_server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
        )

    def end() -> None:
        ours.close()
        process.wait(_ENDS_WITHIN)

    atexit.register(end)
    return ours


class _Command(NamedTuple):
    arguments: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    descriptors: Sequence[int]


def _serve(requests: socket.socket) -> _Command | None:
    """Fork for each request.

    Return the command to run in a child, or None in the server when the tests have ended.
    """
    children: dict[int, socket.socket] = {}
    ended, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready = select.select([requests.fileno(), ended], [], [])[0]
        if ended in ready:
            os.read(ended, 1000)
            _report(children)
        if requests.fileno() not in ready:
            continue
        request, descriptors, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 3)
        if not request:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            return None
        status = socket.socket(fileno=descriptors.pop())
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for each in (requests, status, *children.values()):
                each.close()
            os.close(ended)
            os.close(wakeup)
            return _Command(**json.loads(request), descriptors=descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        children[pid] = status
        status.sendall(b"%d\n" % pid)


def _report(children: dict[int, socket.socket]) -> None:
    for pid, status in list(children.items()):
        found, how = os.waitpid(pid, os.WNOHANG)
        if found:
            with children.pop(pid), contextlib.suppress(OSError):
                status.sendall(b"%d\n" % os.waitstatus_to_exitcode(how))


def _become(command: _Command) -> None:
    """Make this fork like a process that was started on its own, and run the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(command.descriptors, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(command.env)
    os.chdir(command.cwd)
    given = command.env.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [command.cwd, *(folder for folder in given if folder and folder not in sys.path)]
    importlib.invalidate_caches()
    sys.argv = ["deltaloom", *command.arguments]
    sys.orig_argv = [sys.executable, "-W", "error", "-m", "service", *command.arguments]
    runpy.run_module("service", run_name="__main__", alter_sys=True)


def _preload() -> None:
    """Import all modules that a worker, a relay or a command may import."""
    service: Any = importlib.import_module("service")
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if module.name != "service.__main__":
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _preload()
    with socket.socket(fileno=int(sys.argv[1])) as own_end:
        wanted = _serve(own_end)
    if wanted is not None:
        _become(wanted)
