"""Test that the command behaves alike as a process, inside the tests' process, and as a fork."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest

from deltaloom import StreamNames
from tests.service.cli.command import TIMEOUT, deltaloom, deltaloom_process, environment, running

if TYPE_CHECKING:
    from redis.asyncio import Redis

REFUSAL = b'{"type":"response.refusal.done","refusal":"N\xc3\xb6.","item_id":"m"}'


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("--version",), b""),
        (("check", "--help"), b""),
        (("check", "--json"), b""),
        (("publish", "-", "--response-id", "resp_1"), REFUSAL),
        (("publish", "nowhere"), b""),
        (("tail", "dead-letters", "--from-start", "--count", "1"), b""),
        (("show", "resp_1"), b""),
        (("dead-letters", "replay", "--all"), b"n\n"),
        (("alerts", "explain", "-"), b"{"),
        (("alerts", "undelivered"), b""),
        (("worker", "--processes", "0"), b""),
        (("relay", "--config", "nowhere"), b""),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "stdin",
)
async def test_a_process_says_the_same(
    redis: Redis, redis_url: str, prefix: str, arguments: tuple[str, ...], stdin: bytes
) -> None:
    """Give the same output and exit code. Otherwise tests inside this process would prove little."""
    names = StreamNames(prefix)
    await redis.xadd(names.dead_letters, {"reason": "malformed_json", "error": "not JSON"})
    await redis.xadd(names.deltas, {"event": json.dumps({"type": "x"}), "response_id": "resp_2"})
    env = environment(redis_url, prefix)
    inside = deltaloom(*arguments, env=env, stdin=stdin)
    process = deltaloom_process(*arguments, env=env, stdin=stdin)
    assert (process.returncode, steady(process.stdout), process.stderr) == (
        inside.returncode,
        steady(inside.stdout),
        inside.stderr,
    )


def steady(output: str) -> str:
    """Return an output without the server's used memory, which changes from one call to the next."""
    return re.sub(r"[\d,]+ MiB of", "… MiB of", output)


@pytest.mark.parametrize(
    "arguments",
    [("check", "--json"), ("show", "resp_1"), ("worker", "--processes", "0"), ("--version",)],
    ids=" ".join,
)
def test_a_fork_says_the_same(redis_url: str, prefix: str, arguments: tuple[str, ...]) -> None:
    """Give the same output and exit code. Otherwise tests with forked workers would prove little."""
    env = environment(redis_url, prefix)
    inside = deltaloom(*arguments, env=env)
    with running(*arguments, env=env) as fork:
        code = fork.process.wait_blocking(TIMEOUT)
        assert (code, steady(fork.stdout), fork.stderr) == (
            inside.returncode,
            steady(inside.stdout),
            inside.stderr,
        )


def test_a_fork_that_is_killed_has_the_exit_code_of_its_signal(redis_url: str, prefix: str) -> None:
    """Return the signal as a negative code. Otherwise a killed worker would look cleanly stopped."""
    with running("tail", "alerts", env=environment(redis_url, prefix)) as fork:
        assert fork.end(signal.SIGKILL) == -signal.SIGKILL
