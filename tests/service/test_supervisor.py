"""Test that worker processes are started, restarted and stopped together, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from service.supervisor import Pauses, Supervisor
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOON = Pauses(first=0.02, longest=0.08, long_life=60)

OBEYS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))"
DISOBEYS = "signal.signal(signal.SIGTERM, lambda *_: None)"
FAILS_WHEN_STOPPED = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"
IS_THERE = "pathlib.Path(sys.argv[1], sys.argv[2]).touch()"
LIVES = "while True: signal.pause()"
ENDS = "sys.exit(1)"
SETTINGS_ARE_WRONG = "sys.exit(2)"


class Running:
    """A running supervisor. Each of its processes creates a file named by its number once it is up."""

    def __init__(self, folder: Path, scripts: tuple[str, ...], time_to_end: float, pauses: Pauses) -> None:
        self._folder = folder
        self._scripts = scripts
        self.supervisor = Supervisor(len(scripts), self._command, time_to_end, pauses)
        self.task = asyncio.create_task(self.supervisor.run())

    def _command(self, number: int) -> tuple[str, ...]:
        script = f"import pathlib, signal, sys; {self._scripts[number - 1]}"
        return (sys.executable, "-S", "-c", script, str(self._folder), str(number))

    async def until_there(self) -> None:
        """Wait until all processes are up."""
        for number in range(1, 1 + len(self._scripts)):
            await wait_until((self._folder / str(number)).exists, message=f"process {number} is there")


@pytest.fixture
def log_lines() -> Iterator[list[Any]]:
    """Capture the log lines."""
    with capture_logs() as lines:
        yield lines


def events(log_lines: list[Any], event: str, number: int) -> list[Any]:
    """Return the log lines of one event about one process."""
    return [line for line in log_lines if line["event"] == event and line["process"] == number]


def lives(*steps: str) -> str:
    """Return a script that runs `steps`, reports that it is up, and then waits for signals."""
    return "\n".join((*steps, IS_THERE, LIVES))


def run(folder: Path, *scripts: str, time_to_end: float = 10, pauses: Pauses = SOON) -> Running:
    """Start a supervisor with one process for each script."""
    return Running(folder, scripts, time_to_end, pauses)


async def test_all_are_stopped_and_have_ended_well(tmp_path: Path, log_lines: list[Any]) -> None:
    """Stop all processes and return 0 if each one ended cleanly or by the signal itself."""
    running = run(tmp_path, lives(OBEYS), lives(OBEYS), lives())
    await running.until_there()
    signal.raise_signal(signal.SIGTERM)
    assert await running.task == 0
    assert [line["event"] for line in log_lines] == ["process started"] * 3
    for line in log_lines:
        with pytest.raises(ProcessLookupError):
            os.kill(line["pid"], 0)


async def test_a_killed_process_is_restarted_and_others_stay(tmp_path: Path, log_lines: list[Any]) -> None:
    """Restart a killed process and leave the others running."""
    running = run(tmp_path, lives(OBEYS), lives(OBEYS))
    await running.until_there()
    os.kill(events(log_lines, "process started", 1)[0]["pid"], signal.SIGKILL)
    await wait_until(lambda: len(events(log_lines, "process started", 1)) == 2)
    (end,) = events(log_lines, "process ended, restarting", 1)
    assert end["ended"] == "SIGKILL"
    assert len(events(log_lines, "process started", 2)) == 1
    running.supervisor.stop()
    assert await running.task == 0


async def test_restarts_are_delayed(tmp_path: Path, log_lines: list[Any]) -> None:
    """Double the pause between restarts. Otherwise a worker that cannot start would use a whole core."""
    running = run(tmp_path, ENDS, lives(OBEYS))
    ends = "process ended, restarting"
    await wait_until(lambda: len(events(log_lines, ends, 1)) == 5, message="five restarts")
    running.supervisor.stop()
    assert await running.task == 0, "it died before the stop"
    pauses = [line["pause"] for line in events(log_lines, ends, 1)]
    bounds = (0.02, 0.04, 0.08, 0.08, 0.08)
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, bounds, strict=True)), pauses
    assert {line["ended"] for line in events(log_lines, ends, 1)} == {"exit code 1"}


async def test_the_pause_is_short_again_after_a_long_life(tmp_path: Path, log_lines: list[Any]) -> None:
    """Reset the pause after a long life. Otherwise a daily crash would cause ever longer pauses."""
    every_life_is_long = Pauses(first=0.3, longest=60, long_life=0)
    running = run(tmp_path, ENDS, pauses=every_life_is_long)
    ends = "process ended, restarting"
    await wait_until(lambda: len(events(log_lines, ends, 1)) >= 4)
    running.supervisor.stop()
    assert await running.task == 0
    assert all(line["pause"] <= 0.3 for line in events(log_lines, ends, 1))


async def test_a_stop_does_not_wait_for_a_pause(tmp_path: Path, log_lines: list[Any]) -> None:
    """Stop at once while a restart is pending. Otherwise shutdown would wait for the pause to end."""
    running = run(tmp_path, ENDS, pauses=Pauses(first=3600, longest=3600))
    await wait_until(lambda: events(log_lines, "process ended, restarting", 1))
    running.supervisor.stop()
    assert await asyncio.wait_for(running.task, 60) == 0


async def test_wrong_settings_stop_all(tmp_path: Path, log_lines: list[Any]) -> None:
    """Stop all processes and return exit code 2 if one has invalid settings, instead of retrying forever."""
    running = run(tmp_path, lives(OBEYS), SETTINGS_ARE_WRONG)
    assert await running.task == 2
    assert not [line for line in log_lines if line["event"] != "process started"]


async def test_a_process_that_ends_badly_is_reported(tmp_path: Path, log_lines: list[Any]) -> None:
    """Return 1 if a process ends with an error. Otherwise a failed shutdown would look clean."""
    running = run(tmp_path, lives(FAILS_WHEN_STOPPED), lives(OBEYS))
    await running.until_there()
    running.supervisor.stop()
    assert await running.task == 1
    (line,) = events(log_lines, "process failed", 1)
    assert line["ended"] == "exit code 3"


async def test_a_process_that_does_not_end_in_time_is_killed(tmp_path: Path, log_lines: list[Any]) -> None:
    """Kill a process that ignores the signal. Otherwise a worker that hangs would block shutdown forever."""
    running = run(tmp_path, lives(DISOBEYS), time_to_end=0.1)
    await running.until_there()
    running.supervisor.stop()
    assert await running.task == 1
    assert [line["ended"] for line in events(log_lines, "process failed", 1)] == ["SIGKILL"]


async def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    """Kill all processes on the second signal and return 128 plus its number."""
    running = run(tmp_path, lives(DISOBEYS), lives(DISOBEYS), time_to_end=3600)
    await running.until_there()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.task, 60) == 128 + signal.SIGTERM


async def test_a_failed_start_is_retried(tmp_path: Path, log_lines: list[Any]) -> None:
    """Retry a process that cannot be started. Otherwise a brief lack of memory would end the supervisor."""
    program = tmp_path / "program"
    supervisor = Supervisor(1, lambda _: (str(program),), 10, SOON)
    task = asyncio.create_task(supervisor.run())
    await wait_until(lambda: events(log_lines, "process ended, restarting", 1))
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    await wait_until(lambda: events(log_lines, "process started", 1))
    supervisor.stop()
    assert await task == 0
    assert log_lines[0]["ended"] == "not started: No such file or directory"


async def test_ctrl_c_reaches_the_parent_alone(tmp_path: Path, log_lines: list[Any]) -> None:
    """Run processes in their own groups. Otherwise Ctrl-C would reach them twice and skip clean shutdown."""
    running = run(tmp_path, lives(OBEYS))
    await running.until_there()
    assert os.getpgid(log_lines[0]["pid"]) == log_lines[0]["pid"]
    running.supervisor.stop()
    await running.task
