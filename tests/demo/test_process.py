"""Test how the demo ends its processes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from demo import process
from demo.process import ServiceProcess

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""
"""A program that ignores the request to end."""


def test_process_that_does_not_end_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill a process that ignores SIGTERM. Otherwise the demo would hang, or leave a process behind."""
    monkeypatch.setattr(process, "_STOPPED_WITHIN", 0.05)
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"ready\n"
        process._end(deaf)  # noqa: SLF001 - the wait of a whole process is too long for a test
        assert deaf.returncode == -9


def test_process_that_was_not_started_needs_no_end(tmp_path: Path) -> None:
    """Do nothing if the block of a process has not begun, for example because the log cannot be written."""
    worker = ServiceProcess(["worker"], tmp_path / "log", {})
    worker.ask_to_stop()
    worker.__exit__(None, None, None)
    assert (worker.name, worker.exit_code) == ("worker", None)
