"""Run `python -m service` inside the test's process.

The command sees what a process of its own would give it: file descriptors 0, 1 and 2, its environment, its
working directory and its arguments. The whole process shares them, so commands run one at a time. A command
runs in a thread, since the test may be inside an event loop and the command starts its own.
"""

from __future__ import annotations

import gc
import os
import runpy
import subprocess
import sys
import threading
import traceback
from contextlib import ExitStack, contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from tests.logging_restored import logging_restored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_ONE_AT_A_TIME = threading.Lock()


def run(
    arguments: Sequence[str], env: Mapping[str, str], stdin: bytes, cwd: Path | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. Return its exit code and its output.

    Raises:
        AssertionError: It did not end within `timeout` seconds.
    """
    with _ONE_AT_A_TIME, TemporaryFile() as stdout, TemporaryFile() as stderr:
        codes: list[int] = []
        with ExitStack() as stack:
            stack.enter_context(logging_restored())
            stack.callback(gc.unfreeze)  # a worker freezes what it has imported
            stack.enter_context(_environment(env))
            stack.enter_context(_folder(cwd))
            stack.enter_context(_descriptors(stdin, stdout, stderr))
            thread = threading.Thread(target=lambda: codes.append(_main(arguments)), daemon=True)
            thread.start()
            thread.join(timeout)
        assert codes, f"deltaloom {' '.join(arguments)} did not end within {timeout:g} s"
        return subprocess.CompletedProcess(arguments, codes[0], _read(stdout), _read(stderr))


def _main(arguments: Sequence[str]) -> int:
    before = sys.argv
    sys.argv = ["deltaloom", *arguments]  # run_module replaces the first one by the program's file
    try:
        runpy.run_module("service", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
            return 1
        return end.code or 0
    except BaseException:  # noqa: BLE001 - prints the traceback as the interpreter does
        traceback.print_exc()
        return 1
    finally:
        sys.argv = before
    return 0


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    _set_environment(env)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(env: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(env):
        del os.environ[name]
    os.environ.update(env)


@contextmanager
def _folder(cwd: Path | None) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY)
    try:
        if cwd is not None:
            os.chdir(cwd)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@contextmanager
def _descriptors(stdin: bytes, stdout: IO[bytes], stderr: IO[bytes]) -> Iterator[None]:
    """Connect 0 to a pipe with `stdin`, 1 and 2 to files, and `sys` to new streams over all three."""
    sys.stdout.flush()
    sys.stderr.flush()
    streams = sys.stdin, sys.stdout, sys.stderr
    saved = [os.dup(number) for number in range(3)]
    source, sink = os.pipe()
    feeder = threading.Thread(target=_feed, args=(sink, stdin), daemon=True)
    feeder.start()
    try:
        for number, descriptor in enumerate((source, stdout.fileno(), stderr.fileno())):
            os.dup2(descriptor, number)
        os.close(source)
        with (
            open(0, encoding="utf-8", closefd=False) as sys.stdin,
            open(1, "w", encoding="utf-8", closefd=False) as sys.stdout,
            open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as sys.stderr,
        ):
            yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
            os.close(descriptor)
        feeder.join()


def _feed(sink: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(sink, "wb") as pipe:
        pipe.write(data)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
