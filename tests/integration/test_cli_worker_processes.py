"""Tests of `deltaloom worker --processes N`: several workers under one supervisor."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import GROUP, StreamNames
from tests.service.cli.command import TIMEOUT, deltaloom, environment, running
from tests.waiting import wait_until
from tests.workers import logged, texts, wait_until_settled

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.service.cli.command import Running

RESPONSES = 200


def lines(command: Running) -> list[dict[str, Any]]:
    """Return the lines that the supervisor and its workers have logged."""
    return logged(command.stderr)


def logged_as(command: Running, event: str) -> list[dict[str, Any]]:
    """Return the logged lines with this event name."""
    return [line for line in lines(command) if line["event"] == event]


async def until_started(command: Running, count: int) -> list[dict[str, Any]]:
    """Wait until this many workers have started, and return the lines that report it."""
    return await wait_until(
        lambda: found if len(found := logged_as(command, "worker started")) >= count else [],
        TIMEOUT,
        message=f"{count} workers have started",
    )


async def publish(redis: Redis, prefix: str, begin: int) -> None:
    """Publish responses with three deltas and a closing event each."""
    part = {"item_id": "msg", "output_index": 0, "content_index": 0}
    for number in range(begin, begin + RESPONSES):
        events: list[dict[str, Any]] = [
            {"type": "response.refusal.delta", "delta": f"{step}.", "sequence_number": step, **part}
            for step in range(3)
        ]
        events.append(
            {"type": "response.refusal.done", "refusal": "0.1.2.", "sequence_number": 3, **part},
        )
        for event in events:
            fields = {"event": json.dumps(event), "response_id": f"resp_{number}"}
            await redis.xadd(StreamNames(prefix).deltas, fields)  # type: ignore[arg-type]  # invariant dict


async def all_texts(redis: Redis, prefix: str, count: int) -> None:
    """Assert that each response has its text exactly once."""
    await wait_until_settled(redis, prefix)
    written = await texts(redis, prefix)
    assert sorted(text.response_id or "" for text in written) == sorted(f"resp_{n}" for n in range(count))
    assert {(text.text, text.integrity) for text in written} == {("0.1.2.", "verified")}


async def test_a_killed_worker_is_back_and_nothing_is_missing(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A killed worker is started again under its name, and no text is lost."""
    settings = environment(redis_url, prefix, DELTALOOM_CONSUMER="loom", DELTALOOM_BATCH_SIZE="20")
    with running("worker", "--processes", "2", env=settings) as command:
        started = await until_started(command, 2)
        assert {(line["process"], line["consumer"]) for line in started} == {(1, "loom-1"), (2, "loom-2")}
        await publish(redis, prefix, 0)
        victim = next(line["pid"] for line in logged_as(command, "process started") if line["process"] == 2)
        os.kill(victim, signal.SIGKILL)
        await publish(redis, prefix, RESPONSES)
        again = await until_started(command, 3)
        assert again[-1]["consumer"] == "loom-2"
        await all_texts(redis, prefix, 2 * RESPONSES)
        assert command.end(signal.SIGTERM) == 0
        (end,) = logged_as(command, "process ended, restarting")
        assert (end["process"], end["ended"]) == (2, "SIGKILL")
        assert sorted(line["process"] for line in logged_as(command, "worker stopped")) == [1, 2]
    assert (await redis.xpending(StreamNames(prefix).deltas, GROUP))["pending"] == 0


async def test_workers_end_in_order_when_their_supervisor_is_killed(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Workers stop by themselves when their supervisor is killed.

    Otherwise they would run next to their successors.
    """
    with running("worker", "--processes", "2", env=environment(redis_url, prefix)) as command:
        await until_started(command, 2)
        await publish(redis, prefix, 0)
        command.process.kill()
        await wait_until(
            lambda: {line["process"] for line in logged_as(command, "worker stopped")} == {1, 2},
            TIMEOUT,
            message="both workers stop by themselves",
        )
    assert (await redis.xpending(StreamNames(prefix).deltas, GROUP))["pending"] == 0


async def test_workers_end_in_order_when_their_supervisor_dies_after_stopping_them(
    redis_url: str, prefix: str
) -> None:
    """The end of the supervisor is no second signal, which would end a stopping worker at once."""
    slow_to_stop = environment(redis_url, prefix, DELTALOOM_BLOCK_MS="1000")
    with running("worker", "--processes", "2", env=slow_to_stop) as command:
        await until_started(command, 2)
        for line in logged_as(command, "process started"):
            os.kill(line["pid"], signal.SIGTERM)
        command.process.kill()
        await wait_until(
            lambda: {line["process"] for line in logged_as(command, "worker stopped")} == {1, 2},
            TIMEOUT,
            message="both workers end in order",
        )


async def test_each_process_has_its_own_consumer_name(redis_url: str, prefix: str) -> None:
    """The worker processes have different consumer names.

    Otherwise one would acknowledge another's entries.
    """
    settings = environment(redis_url, prefix, DELTALOOM_PROCESSES="2")
    with running("worker", env=settings) as command:
        started = await until_started(command, 2)
        assert len({line["consumer"] for line in started}) == 2
        assert command.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("arguments", "settings", "line"),
    [
        ((), {"DELTALOOM_PROCESSES": "0"}, "DELTALOOM_PROCESSES='0' is not allowed: greater than"),
        ((), {"DELTALOOM_PROCESSES": "many"}, "DELTALOOM_PROCESSES='many' is not allowed: a valid integer"),
        (("--processes", "0"), {}, "Invalid value for '--processes'"),
        (("--processes", "2"), {"DELTALOOM_HANDLERS": "nobody"}, "DELTALOOM_HANDLERS='nobody' is not"),
    ],
)
def test_wrong_settings_are_reported_once(
    arguments: tuple[str, ...], settings: dict[str, str], line: str
) -> None:
    """A wrong setting is reported once, by the supervisor, and ends it."""
    done = deltaloom("worker", *arguments, env=environment(**settings))
    assert done.returncode == 2
    assert done.stderr.count(line) == 1
    assert "process started" not in done.stderr
