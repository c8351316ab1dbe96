"""Processes are started, started again and stopped together. Real ones, that do what workers may do."""

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
SAYS_IT_ENDS_BADLY = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))"
IS_THERE = "pathlib.Path(sys.argv[1], sys.argv[2]).touch()"
LIVES = "while True: signal.pause()"
ENDS = "sys.exit(1)"
SETTINGS_ARE_WRONG = "sys.exit(2)"


class Running:
    """A supervisor that runs, and its processes: each leaves a file with its number when it is there."""

    def __init__(self, folder: Path, scripts: tuple[str, ...], time_to_end: float, pauses: Pauses) -> None:
        self._folder = folder
        self._scripts = scripts
        self.supervisor = Supervisor(len(scripts), self._command, time_to_end, pauses)
        self.task = asyncio.create_task(self.supervisor.run())

    def _command(self, number: int) -> tuple[str, ...]:
        script = f"import pathlib, signal, sys; {self._scripts[number - 1]}"
        return (sys.executable, "-S", "-c", script, str(self._folder), str(number))

    async def until_there(self) -> None:
        """Wait until all are there, from now on."""
        for number in range(1, 1 + len(self._scripts)):
            await wait_until((self._folder / str(number)).exists, message=f"process {number} is there")


@pytest.fixture
def said() -> Iterator[list[Any]]:
    """The lines that are logged."""
    with capture_logs() as lines:
        yield lines


def events(said: list[Any], event: str, number: int) -> list[Any]:
    """The lines of one kind about one process."""
    return [line for line in said if line["event"] == event and line["process"] == number]


def lives(*steps: str) -> str:
    """A script: what it does first, that it says it is there, and that it stays."""
    return "\n".join((*steps, IS_THERE, LIVES))


def run(folder: Path, *scripts: str, time_to_end: float = 10, pauses: Pauses = SOON) -> Running:
    """Start a supervisor."""
    return Running(folder, scripts, time_to_end, pauses)


async def test_all_are_stopped_and_have_ended_well(tmp_path: Path, said: list[Any]) -> None:
    """A stop would leave processes, or call a good end a bad one."""
    running = run(tmp_path, lives(OBEYS), lives(OBEYS), lives())
    await running.until_there()
    signal.raise_signal(signal.SIGTERM)
    assert await running.task == 0
    assert [line["event"] for line in said] == ["process started"] * 3
    for line in said:
        with pytest.raises(ProcessLookupError):
            os.kill(line["pid"], 0)


async def test_one_that_is_killed_comes_back_and_the_others_stay(tmp_path: Path, said: list[Any]) -> None:
    """A worker that is killed would be missing from then on."""
    running = run(tmp_path, lives(OBEYS), lives(OBEYS))
    await running.until_there()
    os.kill(events(said, "process started", 1)[0]["pid"], signal.SIGKILL)
    await wait_until(lambda: len(events(said, "process started", 1)) == 2)
    (end,) = events(said, "process ended, starting it again", 1)
    assert end["ended"] == "SIGKILL"
    assert len(events(said, "process started", 2)) == 1
    running.supervisor.stop()
    assert await running.task == 0


async def test_one_that_dies_at_once_is_not_started_in_a_spin(tmp_path: Path, said: list[Any]) -> None:
    """A worker that cannot start would take a whole processor to try."""
    running = run(tmp_path, ENDS, lives(OBEYS))
    ends = "process ended, starting it again"
    await wait_until(lambda: len(events(said, ends, 1)) == 5, message="it has died five times")
    running.supervisor.stop()
    assert await running.task == 0, "it died before it was told to stop"
    pauses = [line["pause"] for line in events(said, ends, 1)]
    bounds = (0.02, 0.04, 0.08, 0.08, 0.08)
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, bounds, strict=True)), pauses
    assert {line["ended"] for line in events(said, ends, 1)} == {"exit code 1"}


async def test_the_pause_is_short_again_after_a_long_life(tmp_path: Path, said: list[Any]) -> None:
    """A worker that dies once a day would be away for longer every day."""
    every_life_is_long = Pauses(first=0.3, longest=60, long_life=0)
    running = run(tmp_path, ENDS, pauses=every_life_is_long)
    ends = "process ended, starting it again"
    await wait_until(lambda: len(events(said, ends, 1)) >= 4)
    running.supervisor.stop()
    assert await running.task == 0
    assert all(line["pause"] <= 0.3 for line in events(said, ends, 1))


async def test_a_stop_does_not_wait_for_a_pause(tmp_path: Path, said: list[Any]) -> None:
    """A stop would take half a minute because one process is not there anyway."""
    running = run(tmp_path, ENDS, pauses=Pauses(first=3600, longest=3600))
    await wait_until(lambda: events(said, "process ended, starting it again", 1))
    running.supervisor.stop()
    assert await asyncio.wait_for(running.task, 5) == 0


async def test_wrong_settings_stop_all(tmp_path: Path, said: list[Any]) -> None:
    """A wrong setting would be tried again for ever, or be told by nobody's exit code."""
    running = run(tmp_path, lives(OBEYS), SETTINGS_ARE_WRONG)
    assert await running.task == 2
    assert not [line for line in said if line["event"] != "process started"]


async def test_one_that_ends_badly_is_told(tmp_path: Path, said: list[Any]) -> None:
    """A stop that failed would pass for one that did not."""
    running = run(tmp_path, lives(SAYS_IT_ENDS_BADLY), lives(OBEYS))
    await running.until_there()
    running.supervisor.stop()
    assert await running.task == 1
    (line,) = events(said, "process did not end well", 1)
    assert line["ended"] == "exit code 3"


async def test_one_that_does_not_end_in_time_is_killed(tmp_path: Path, said: list[Any]) -> None:
    """A worker that hangs would hold up the stop for ever."""
    running = run(tmp_path, lives(DISOBEYS), time_to_end=0.1)
    await running.until_there()
    running.supervisor.stop()
    assert await running.task == 1
    assert [line["ended"] for line in events(said, "process did not end well", 1)] == ["SIGKILL"]


async def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    """Whoever has no time would have to find all processes and kill them."""
    running = run(tmp_path, lives(DISOBEYS), lives(DISOBEYS))
    await running.until_there()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.task, 5) == 128 + signal.SIGTERM


async def test_what_cannot_be_started_is_tried_again(tmp_path: Path, said: list[Any]) -> None:
    """A moment without memory would end the supervisor, and leave its processes alone."""
    program = tmp_path / "program"
    supervisor = Supervisor(1, lambda _: (str(program),), 10, SOON)
    task = asyncio.create_task(supervisor.run())
    await wait_until(lambda: events(said, "process ended, starting it again", 1))
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    await wait_until(lambda: events(said, "process started", 1))
    supervisor.stop()
    assert await task == 0
    assert said[0]["ended"] == "not started: No such file or directory"


async def test_ctrl_c_reaches_the_parent_alone(tmp_path: Path, said: list[Any]) -> None:
    """Workers would have it twice, from the terminal and from the parent, and leave at once."""
    running = run(tmp_path, lives(OBEYS))
    await running.until_there()
    assert os.getpgid(said[0]["pid"]) == said[0]["pid"]
    running.supervisor.stop()
    await running.task
