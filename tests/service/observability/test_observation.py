"""Test what a process logs about its own progress."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service import under_way
from service.observability import heartbeat_file
from service.observability.liveness import Liveness
from service.observability.observation import Observation, observing
from service.settings import Settings, SettingsError
from tests.waiting import wait_until


async def test_a_process_that_did_not_run_says_so(tmp_path: Path) -> None:
    """Otherwise the timeouts after a frozen process continues would blame Redis."""
    observation = Observation(Settings(heartbeat_file=tmp_path / "beat"))
    observation.liveness = Liveness(under_way.steps, time.monotonic() - 100)
    with capture_logs() as lines:
        await observation.start()
        try:
            await wait_until(lambda: bool(lines), message="it is logged")
        finally:
            await observation.stop()
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("process did not run", "warning")
    assert 99 <= line["seconds"] < 130
    assert line["busy_seconds"] < 5


def test_a_step_that_waits_for_too_long_is_a_reason() -> None:
    """A process of which one step gets nothing done is not ready, although its parts say nothing."""
    observation = Observation(Settings())

    class Ready:
        started = True

        def not_ready(self) -> list[str]:
            return []

        async def status(self) -> dict[str, Any]:
            return {}

    observation.parts["worker"] = Ready()
    with under_way.Step("read", "a") as step:
        step.waits, step.moved_at = True, step.moved_at - 40
        assert observation.not_ready() == ["a read of a has waited for Redis for 40 s"]
        assert observation.stuck() == []
    assert observation.not_ready() == []


@pytest.fixture
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(heartbeat_file.SETTING, raising=False)
    monkeypatch.setattr(heartbeat_file, "_folders", lambda _: [Path(os.devnull, "folder")])


@pytest.mark.usefixtures("_no_folder")
async def test_a_process_without_a_place_for_its_files_goes_on() -> None:
    """Log that neither the heartbeat nor the socket for the parent can be had, and observe without them."""
    observation = Observation(Settings(processes=2, http="127.0.0.1:0"), 1)
    with capture_logs() as lines:
        await observation.start()
        try:
            observation.liveness = Liveness(under_way.steps, time.monotonic() - 100)
            await wait_until(lambda: any(line["event"] == "process did not run" for line in lines))
        finally:
            await observation.stop()
    assert [line["event"] for line in lines[:2]] == ["http not started", "heartbeat not written"]
    assert all("no folder can be written" in line["error"] for line in lines[:2])
    assert (lines[1]["file"], "DELTALOOM_HEARTBEAT_FILE" in lines[1]["remedy"]) == (None, True)


async def test_a_heartbeat_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Name the file and the reason, so that an operator can correct the setting."""
    observation = Observation(Settings(heartbeat_file=tmp_path / "missing" / "beat"))
    with capture_logs() as lines:
        await observation.start()
        await observation.stop()
    (line,) = [line for line in lines if line["event"] == "heartbeat not written"]
    assert (line["file"], line["error"]) == (str(tmp_path / "missing" / "beat"), "No such file or directory")


async def test_an_address_in_use_ends_the_start(tmp_path: Path) -> None:
    """Raise an error that names the setting, and stop, although nothing was started."""
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    address = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
    async with taken:
        with pytest.raises(SettingsError, match=f"DELTALOOM_HTTP='{address}' cannot be used"):
            async with observing(Settings(http=address, heartbeat_file=tmp_path / "beat")):
                pytest.fail("it has begun")
    assert not (tmp_path / "beat").exists()
