"""Test what a parent tells about the processes that it supervises."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.observability import heartbeat_file
from service.observability import siblings as siblings_module
from service.observability.heartbeat_file import STALE_AFTER
from service.observability.observation import Observation, socket_of
from service.observability.routes import HttpRequest
from service.observability.siblings import STARTS_WITHIN, Siblings, observing_siblings
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.observability.routes import Answer


class Part:
    """A part of a process that waits for something."""

    started = False

    def not_ready(self) -> list[str]:
        """Return the reason."""
        return ["waits for Redis"]

    async def status(self) -> dict[str, Any]:
        """Return the state."""
        return {"seen": 1}


@pytest.fixture(autouse=True)
def _private(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the test a folder of its own, with a path short enough for a socket; be one's own parent."""
    with tempfile.TemporaryDirectory(prefix="dl") as folder:
        monkeypatch.setenv("RUNTIME_DIRECTORY", folder)
        monkeypatch.delenv(heartbeat_file.SETTING, raising=False)
        monkeypatch.setattr(os, "getppid", os.getpid)
        yield


def two_processes() -> Settings:
    """Return the settings of a program with two processes, and HTTP at any port."""
    return Settings(processes=2, http="127.0.0.1:0")


async def asked(siblings: Siblings, path: str) -> Answer:
    """Return the answer of a route."""
    return await siblings.routes[path](HttpRequest(path, {}))


async def test_processes_that_have_not_begun_are_starting() -> None:
    """Report processes without a heartbeat as starting, and not as stuck while they may start."""
    async with observing_siblings(two_processes()) as siblings:
        assert siblings.stuck() == []
        assert (await asked(siblings, "/livez")).status == 200
        assert siblings.not_started() == ["process 1: starting", "process 2: starting"]
        assert (await asked(siblings, "/startupz")).status == 503
        ready = await asked(siblings, "/readyz")
        assert (ready.status, ready.body.decode().splitlines()) == (
            503,
            ["process 1: no sign of life yet", "process 2: no sign of life yet"],
        )


async def test_processes_that_never_begin_are_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report a process without a heartbeat as stuck when it had time enough to start."""
    siblings = Siblings(two_processes())
    later = time.monotonic() + STARTS_WITHIN + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert siblings.stuck() == ["process 1: no sign of life yet", "process 2: no sign of life yet"]


async def test_process_that_serves_tells_its_state() -> None:
    """Ask each process for its state at its socket, and say of the others that they do not answer."""
    settings = two_processes()
    process = Observation(settings, 1)
    process.parts["worker"] = Part()
    await process.start()
    try:
        async with observing_siblings(settings) as siblings:
            assert siblings.not_ready() == [
                "process 1: worker: waits for Redis",
                "process 2: no sign of life yet",
            ]
            answer = await asked(siblings, "/statusz")
            assert answer.status == 200
            status = json.loads(answer.body)
            first, second = status["processes"]
            assert (first["process"], first["pid"], first["worker"]) == (1, os.getpid(), {"seen": 1})
            assert second == {"process": 2, "error": "no answer"}
            assert await siblings.from_each("/nothing") == {1: None, 2: None}
    finally:
        await process.stop()
    assert not socket_of(os.getpid(), 1).exists()


async def test_old_heartbeat_means_that_a_process_is_frozen(tmp_path: Path) -> None:
    """Report how long ago a process gave its last sign of life."""
    settings = Settings(processes=1, heartbeat_file=tmp_path / "beat")
    beat = tmp_path / "beat.1"
    content = {"owner": 1, "processes": 1, "started": True, "not_ready": [], "stuck": []}
    beat.write_text(json.dumps(content))
    long_ago = time.time() - STALE_AFTER - 100
    os.utime(beat, (long_ago, long_ago))
    (line,) = Siblings(settings).not_ready()
    assert line.startswith("process 1: no sign of life for 1")
    assert Siblings(settings).stuck() == [line]


async def test_without_a_place_for_heartbeats_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say so, rather than fail, if no folder for heartbeats and sockets can be written."""
    monkeypatch.setattr(heartbeat_file, "_folders", lambda _: [Path(os.devnull, "folder")])
    siblings = Siblings(two_processes())
    assert siblings.not_ready() == ["process 1: no sign of life yet", "process 2: no sign of life yet"]
    assert await siblings.from_each("/statusz") == {1: None, 2: None}


async def test_address_in_use_ends_the_start() -> None:
    """Raise an error that names the setting, and stop, although nothing was started."""
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    address = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
    async with taken:
        with pytest.raises(SettingsError, match=f"DELTALOOM_HTTP='{address}' cannot be used"):
            async with observing_siblings(Settings(processes=2, http=address)):
                pytest.fail("it has begun")


@pytest.mark.parametrize("surplus", [0, 1])
async def test_an_endless_answer_is_not_kept(surplus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with too long an answer counts as one without: it could fill the memory of its parent."""
    monkeypatch.setattr(siblings_module, "MAX_ANSWER_BYTES", 5000)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * (5000 + surplus))
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, socket_of(os.getpid(), 1)):
        bodies = await Siblings(Settings(processes=1)).from_each("/metrics/values")
    assert bodies == {1: None if surplus else b"x" * 5000}
