"""Commands and workers never print published control or invisible characters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from deltaloom import StreamNames
from handlers.core.identity import StreamKey
from service.cli import app
from service.keys import Keys
from tests.hidden import NAME, hidden_in
from tests.service.cli.command import deltaloom, environment
from tests.streams import add, entries
from tests.waiting import wait_until
from tests.workers import alerts, beginning_workers, dead_letters, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis.asyncio import Redis

PART = {"item_id": NAME, "output_index": 0, "content_index": 0}
CONTEXT = {
    "response_id": NAME,
    "tenant": NAME[:250],
    "model": NAME[:250],
    "safety_identifier": NAME[:250],
    "provider": NAME[:250],
    "reference": NAME[:500],
}
EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "response.refusal.delta", "sequence_number": 1, "delta": NAME, **PART},
    {"type": "response.refusal.done", "sequence_number": 2, "refusal": NAME, **PART},
    {"type": NAME, "sequence_number": 3},
    {"type": "response.refusal.delta", NAME: 1, "content_index": NAME, "output_index": 0, "delta": "x"},
    {"type": "response.reasoning_text.delta", "sequence_number": 4, "delta": NAME, **PART},
    {"type": "response.incomplete", "response": {"incomplete_details": {"reason": NAME[:250]}}},
)
ALERTS = """
[destinations.gone]
type = "command"
command = ["false"]
begin = "all"
give_up_after = 0.001
"""
LONG_RUNNING = {"run", "worker", "relay", "tap", "console", "archive run"}
"""Commands that run until they are stopped. Their output is the log, which `test_worker_log` covers."""


@pytest.fixture
def env(redis_url: str, prefix: str) -> dict[str, str]:
    """Return the environment of the commands."""
    return environment(redis_url, prefix)


async def publish(redis: Redis, prefix: str) -> None:
    """Publish a response with hostile characters in every name and value."""
    for event in EVENTS:
        await add(redis, StreamNames(prefix).deltas, {"event": json.dumps(event), **CONTEXT, NAME: NAME})
    await add(redis, StreamNames(prefix).deltas, {"event": NAME, **CONTEXT})


def commands(group: Any, before: str = "") -> Iterator[str]:
    """Yield the full names of a group's commands, those of its sub-groups included."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name


@pytest.mark.parametrize("log_format", ["json", "pretty"])
async def test_worker_log(redis: Redis, redis_url: str, prefix: str, log_format: str) -> None:
    """The worker's log escapes hostile characters in both formats, since operators read it on a terminal."""
    settings: dict[str, Any] = {"log_format": log_format, "log_level": "debug", "log_text": True}
    async with beginning_workers(redis_url, prefix, **settings) as (worker,):
        await wait_until(lambda: "worker started" in worker.log.read_text(), 30)
        await publish(redis, prefix)
        await wait_until_settled(redis, prefix)
        await wait_until(lambda: "dead letter" in worker.log.read_text())
        written = worker.log.read_text()
    assert "taken" in written
    assert hidden_in(written, but="\n") == set()


@pytest.mark.slow
@pytest.mark.timeout(360)  # it runs some sixty commands
async def test_every_command(
    redis: Redis, redis_url: str, prefix: str, env: dict[str, str], tmp_path: Path
) -> None:
    """Commands escape what they print. Otherwise a stranger could control the operator's terminal."""
    (tmp_path / "alerts.toml").write_text(ALERTS)
    (tmp_path / "stream.jsonl").write_text("\n".join(map(json.dumps, EVENTS)))
    async with beginning_workers(redis_url, prefix):
        await publish(redis, prefix)
        await wait_until(lambda: redis.exists(StreamNames(prefix).dead_letters), 30)
        await wait_until_settled(redis, prefix)
    assert len(await dead_letters(redis, prefix)) == 2
    assert (await alerts(redis, prefix))[0].response_id == NAME
    ids = [entry_id for entry_id, _ in await entries(redis, StreamNames(prefix).dead_letters)]
    alert_id = (await alerts(redis, prefix))[0].id
    given_up = {"destination": NAME, "reason": NAME, "answer": NAME, "attempts": "1", "entry_id": "1-0"}
    data = {
        "__data__": (await alerts(redis, prefix))[0].model_dump_json(),
        "failed_at": "2026-01-02T00:00:00Z",
    }
    await add(redis, StreamNames(prefix).undelivered, {**given_up, **data})
    calls: dict[str, list[tuple[str, ...]]] = {
        "tail": [
            (stream, "--from-start", "--count", "2", *as_json)
            for stream in ("deltas", "assembled", "alerts", "dead-letters")
            for as_json in ((), ("--json",))
        ],
        "show": [(NAME,), (NAME, "--json"), (f"{NAME}?",)],
        "check": [(), ("--json",)],
        "health": [(), (NAME,)],
        "init": [(), (NAME,)],
        "publish": [("stream.jsonl", "--response-id", NAME), (NAME,), ("stream.jsonl", "--context", NAME)],
        "dead-letters list": [(), ("--json",), ("--reason", NAME)],
        "dead-letters show": [*((each,) for each in ids), (ids[0], "--json"), (NAME,)],
        "dead-letters replay": [(ids[0],), (NAME,)],
        "dead-letters drop": [(ids[1],), (NAME,)],
        "alerts explain": [(alert_id,), (alert_id, "--json"), (NAME,)],
        "alerts check": [(), ("--config", NAME)],
        "alerts rates": [(), ("--json",), (f"--{NAME}",)],
        "alerts undelivered": [(), ("--json",), ("--reason", NAME)],
        "alerts resend": [(NAME,), ("--all",)],
        "alerts test": [("gone",), (NAME,)],
        "alerts enable": [("gone",), (NAME,)],
        "alerts heartbeat": [("--to", NAME)],
        "search": [(NAME,), (NAME, "--json")],
        "export": [("--until", NAME)],
        "archive migrate": [()],
        "archive search": [(NAME, "--part", NAME)],
        "archive show": [(NAME,)],
        "archive export": [("--until", NAME)],
        "archive hold": [("--tenant", NAME, "--why", NAME, "--who", NAME)],
        "archive holds": [()],
        "archive release": [(NAME,)],
        "archive erase": [("--tenant", NAME, "--yes", "--who", NAME)],
        "archive retain": [()],
        "archive verify": [(NAME,)],
        "drain": [(), ("--json",), ("--resume",)],
        "metrics": [(), ("--output", NAME)],
        "remove": [("--dry-run",), ("--prefix", NAME, "--dry-run"), ("--yes", "--force")],
    }
    assert set(calls) | LONG_RUNNING == set(commands(typer.main.get_command(app)))
    for command, variants in calls.items():
        for arguments in variants:
            done = deltaloom(*command.split(), *arguments, env=env, cwd=tmp_path)
            message = f"{command} {arguments!a} exited with {done.returncode}"
            assert "Traceback" not in done.stderr, message
            assert done.stdout or done.stderr or command == "alerts rates", message
            assert hidden_in(done.stdout + done.stderr, but="\n") == set(), message


async def test_a_mistake_of_ours(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """A traceback neither contains stored texts nor prints their control characters."""
    state = Keys(StreamNames(prefix)).state(StreamKey("response", "resp_1"))
    await redis.hset(state, "ctx:tenant", f"ZQXMARKERXQZ{NAME}")
    await redis.expire(state, 60)
    done = deltaloom("show", "resp_1", env=env)
    assert done.returncode == 1
    assert "ValueError" in done.stderr
    assert "ZQXMARKERXQZ" not in done.stderr
    assert hidden_in(done.stderr, but="\n") == set()


@pytest.mark.parametrize("arguments", [(NAME,), (f"--{NAME}",), ("tail", NAME), ("alerts", NAME)])
def test_mistakes_on_the_command_line(arguments: tuple[str, ...]) -> None:
    """An error message escapes the wrong argument, which may be pasted from elsewhere."""
    done = deltaloom(*arguments)
    assert done.returncode == 2
    assert hidden_in(done.stderr, but="\n") == set()
