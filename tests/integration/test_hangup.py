"""Test that SIGHUP reloads files in each program, and stops one whose terminal was closed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import StreamNames
from tests.integration.test_cli_worker_processes import logged_as, until_started
from tests.relays import SECRETS, destination
from tests.service.cli.command import COMMAND, TIMEOUT, deltaloom, environment, running
from tests.waiting import wait_until
from tests.workers import logged, texts, wait_until_settled

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.service.cli.command import Running

DONE = {
    "type": "response.refusal.done",
    "refusal": "No.",
    "item_id": "m",
    "output_index": 0,
    "content_index": 0,
}


async def publish(redis: Redis, prefix: str, response_id: str) -> None:
    """Publish a refusal, and wait until it is finished."""
    fields: Any = {"event": json.dumps(DONE), "response_id": response_id}
    await redis.xadd(StreamNames(prefix).deltas, fields)
    await wait_until_settled(redis, prefix)


async def hang_up(command: Running, event: str, times: int = 1) -> list[Any]:
    """Send SIGHUP; return all lines of an event when the event was logged some more times."""
    before = len(logged_as(command, event))
    command.process.send_signal(signal.SIGHUP)
    return await wait_until(
        lambda: found if len(found := logged_as(command, event)) >= before + times else [],
        TIMEOUT,
        message=f"{event!r} is logged",
    )


async def test_a_worker_reloads_its_log_level(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Change the level while a worker runs, and keep it if the file is invalid."""
    file = tmp_path / "log-level"
    env = environment(redis_url, prefix, DELTALOOM_LOG_LEVEL_FILE=str(file))
    with running("worker", env=env) as worker:
        await until_started(worker, 1)
        file.write_text("debug\n")
        *_, line = await hang_up(worker, "log level reloaded")
        assert line["log_level"] == "debug"
        await publish(redis, prefix, "resp_1")
        await wait_until(lambda: logged_as(worker, "batch committed"), TIMEOUT, message="debug lines")
        file.write_text("verbose")
        *_, line = await hang_up(worker, "log level file invalid, previous level kept")
        assert "'verbose' is none of debug, info, warning, error" in line["error"]
        file.unlink()
        *_, line = await hang_up(worker, "log level reloaded")
        assert line["log_level"] == "info"
        committed = len(logged_as(worker, "batch committed"))
        await publish(redis, prefix, "resp_2")
        assert worker.end(signal.SIGTERM) == 0
        assert len(logged_as(worker, "batch committed")) == committed
    assert len(await texts(redis, prefix)) == 2


async def test_a_supervisor_passes_it_on(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Reload in the supervisor and in all of its processes, none of which ends."""
    file = tmp_path / "log-level"
    env = environment(redis_url, prefix, DELTALOOM_LOG_LEVEL_FILE=str(file))
    with running("worker", "--processes", "2", env=env) as command:
        await until_started(command, 2)
        file.write_text("DEBUG")
        lines = await hang_up(command, "log level reloaded", 3)
        assert {(line.get("process"), line["log_level"]) for line in lines} == {
            (process, "debug") for process in (None, 1, 2)
        }
        assert command.end(signal.SIGTERM) == 0
        assert logged_as(command, "process ended, restarting") == []


async def test_a_relay_reloads_both_files(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Reload the log level and the alerts file."""
    level, alerts = tmp_path / "log-level", tmp_path / "alerts.toml"
    alerts.write_text(destination("here", "http://127.0.0.1:1"))
    env = environment(redis_url, prefix, DELTALOOM_LOG_LEVEL_FILE=str(level), **SECRETS)
    with running("relay", "--config", str(alerts), env=env) as relay:
        await wait_until(lambda: logged_as(relay, "relay started"), TIMEOUT)
        level.write_text("debug")
        await hang_up(relay, "alerts file reloaded")
        assert [line["log_level"] for line in logged_as(relay, "log level reloaded")] == ["debug"]
        assert relay.end(signal.SIGTERM) == 0


def test_a_wrong_level_at_start_is_an_error(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Exit with 2 if the file has no level, as for any other setting."""
    file = tmp_path / "log-level"
    file.write_text("loud")
    env = environment(redis_url, prefix, DELTALOOM_LOG_LEVEL_FILE=str(file))
    done = deltaloom("worker", env=env)
    assert done.returncode == 2
    assert done.stderr == (
        f"DELTALOOM_LOG_LEVEL_FILE: {file}: 'loud' is none of debug, info, warning, error\n"
    )


@pytest.mark.parametrize("arguments", [("worker",), ("worker", "--processes", "2")])
async def test_a_closed_terminal_stops_it(
    redis_url: str, prefix: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Stop at SIGHUP if the terminal was closed. Otherwise a worker would go on unseen."""
    ours, theirs = os.openpty()
    log = tmp_path / "log"
    env = environment(redis_url, prefix)
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, env=env, stdin=theirs, stdout=theirs, stderr=stderr
        )
    os.close(theirs)
    try:
        count = 2 if "--processes" in arguments else 1
        await wait_until(
            lambda: [line["event"] for line in logged(log.read_text())].count("worker started") == count,
            TIMEOUT,
            message="all have started",
        )
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert await asyncio.wait_for(process.wait(), TIMEOUT) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert [line["event"] for line in logged(log.read_text())].count("worker stopped") == count
