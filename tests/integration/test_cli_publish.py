"""Tests of `deltaloom publish` on a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from deltaloom import StreamNames
from service.storage.pages import entries_of
from tests.client.dialects.streams import SAMPLES, body_of
from tests.service.cli.command import COMMAND, TIMEOUT, deltaloom, environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

Fields = dict[bytes, bytes]

EVENTS = [
    b'{"type": "response.created", "response": {"id": "resp_1"}}',
    b'{"type":"response.refusal.delta","delta":"\\ud83d","item_id":"m","output_index":0,"content_index":0}',
    b'{"type":"response.refusal.delta","delta":"\xf0\x9f\x98\x80"}',
]


@pytest.fixture
def env(redis_url: str, prefix: str) -> dict[str, str]:
    """Return the environment of the command."""
    return environment(redis_url, prefix)


async def entries(redis: Redis, prefix: str) -> list[Fields]:
    """Return the fields of the entries on the input."""
    return [fields for _, fields in entries_of(await redis.xrange(StreamNames(prefix).deltas))]


async def test_a_file_goes_out_as_it_is(
    redis: Redis, prefix: str, env: dict[str, str], tmp_path: Path
) -> None:
    """The events of a file are published byte for byte, with the file's response id and the given context."""
    file = tmp_path / "stream.jsonl"
    file.write_bytes(b"\n".join(EVENTS))
    done = deltaloom("publish", str(file), "--tenant", "acme", "--model", "gpt-x", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"published 3 events in 3 entries to {prefix}:deltas as response resp_1\n"
    context = {b"response_id": b"resp_1", b"tenant": b"acme", b"model": b"gpt-x"}
    assert await entries(redis, prefix) == [{b"event": event, **context} for event in EVENTS]


async def test_any_context_can_be_given(
    redis: Redis, prefix: str, env: dict[str, str], tmp_path: Path
) -> None:
    """`--context NAME=VALUE` sets any context field, and refuses unknown names."""
    file = tmp_path / "stream.jsonl"
    file.write_bytes(EVENTS[0])
    options = ["--context", "provider=openai", "--context", "reference=https://r.example/?a=b"]
    assert deltaloom("publish", str(file), *options, env=env).returncode == 0
    (fields,) = await entries(redis, prefix)
    assert (fields[b"provider"], fields[b"reference"]) == (b"openai", b"https://r.example/?a=b")
    for wrong in ("provider", "supplier=openai"):
        done = deltaloom("publish", str(file), "--context", wrong, env=env)
        assert done.returncode == 2
        assert "NAME=VALUE with a name of tenant, model" in " ".join(done.stderr.replace("│", " ").split())


async def test_server_sent_events_from_a_pipe(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """Server-sent events can be piped in, for example from `curl`."""
    body = b"".join(b"event: x\ndata: " + event + b"\n\n" for event in EVENTS) + b"data: [DONE]\n\n"
    done = deltaloom("publish", "-", "--coalesce", "2", "--response-id", "mine", env=env, stdin=body)
    assert done.stdout == f"published 3 events in 2 entries to {prefix}:deltas as response mine\n"
    assert [fields[b"event"] for fields in await entries(redis, prefix)] == [
        b"[" + EVENTS[0] + b"," + EVENTS[1] + b"]",
        EVENTS[2],
    ]


async def test_a_long_file(redis: Redis, prefix: str, env: dict[str, str], tmp_path: Path) -> None:
    """Events keep their order and completeness across reads and round trips."""
    file = tmp_path / "long.jsonl"
    lines = [json.dumps({"type": "x", "n": n, "pad": "·" * (n % 700)}) for n in range(3000)]
    file.write_text("\n".join(lines))
    done = deltaloom("publish", str(file), env=env)
    assert done.stdout.startswith("published 3,000 events in 3,000 entries")
    assert [fields[b"event"].decode() for fields in await entries(redis, prefix)] == lines


async def test_broken_events_are_published_and_counted(
    redis: Redis, prefix: str, env: dict[str, str]
) -> None:
    """A broken line is published like its neighbours, and reported on stderr."""
    lines = [EVENTS[0], b'{"type":', b"\xff", EVENTS[1]]
    done = deltaloom("publish", "-", env=env, stdin=b"\n".join(lines))
    assert done.returncode == 0
    assert "2 events cannot be read (the first is number 2)" in done.stderr
    assert [fields[b"event"] for fields in await entries(redis, prefix)] == lines


@pytest.mark.parametrize("nothing", [b"", b"\n\n", b": a comment\n\ndata: [DONE]\n\n"])
async def test_nothing_to_publish_is_a_failure(env: dict[str, str], nothing: bytes) -> None:
    """Otherwise a script would go on as if the model had answered."""
    done = deltaloom("publish", "-", env=env, stdin=nothing)
    assert (done.returncode, done.stdout) == (1, "")
    assert "standard input has no event: nothing was published" in done.stderr


async def test_the_right_to_add_is_enough(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """A producer's user needs the right to XADD only."""
    user = prefix.replace(":", "-")
    await redis.acl_setuser(user, enabled=True, passwords=["+pass"], keys=[f"{prefix}:*"], commands=["+xadd"])
    try:
        url = env["REDIS_URL"].replace("redis://", f"redis://{user}:pass@")
        done = deltaloom("publish", "-", env={**env, "REDIS_URL": url}, stdin=EVENTS[0])
    finally:
        await redis.acl_deluser(user)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(await entries(redis, prefix)) == 1


async def test_a_generated_id_is_printed(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`publish` makes a missing response id and prints it, so that the result can be looked up."""
    done = deltaloom("publish", "-", env=env, stdin=EVENTS[1])
    response_id = done.stdout.rpartition(" ")[2].strip()
    assert response_id.startswith("resp_")
    (fields,) = await entries(redis, prefix)
    assert fields[b"response_id"].decode() == response_id


async def test_a_repeated_id_causes_a_warning(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """A response id that was published before causes a warning, since its texts do not come out again."""
    await redis.hset(f"{prefix}:item:resp_1:0", "refusal:0", "{}")
    await redis.expire(f"{prefix}:item:resp_1:0", TIMEOUT)
    done = deltaloom("publish", "-", env=env, stdin=EVENTS[0])
    assert "resp_1 was published before" in done.stderr
    other = deltaloom("publish", "-", "--response-id", "another", env=env, stdin=EVENTS[0])
    assert other.stderr == ""


async def test_the_rate_is_kept(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`--rate` limits the events per second, so that a stream can be replayed at a model's pace."""
    done = deltaloom("publish", "-", "--rate", "20", env=env, stdin=b"\n".join(EVENTS[:1] * 26))
    assert done.returncode == 0
    published = entries_of(await redis.xrange(f"{prefix}:deltas"))
    times = [int(entry_id.partition("-")[0]) for entry_id, _ in published]
    assert times[-1] - times[0] >= 1050  # 25 pauses of 50 ms, less one in which the first entry may be late


async def test_a_pipe_is_followed_until_it_is_interrupted(
    redis: Redis, prefix: str, env: dict[str, str]
) -> None:
    """Events of an open pipe go out as they come, and Ctrl-C reports what was published."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "publish",
        "-",
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    process.stdin.write(EVENTS[0] + b"\n" + EVENTS[1] + b"\n")

    async def published() -> bool:
        return len(await entries(redis, prefix)) == 2

    try:
        await wait_until(published, TIMEOUT, message="the events go out while the pipe is open")
        process.send_signal(signal.SIGINT)
        assert process.stdout
        output = await process.stdout.read()
        assert await process.wait() == 130
        process.stdin.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert output.startswith(b"interrupted: published 2 events")


def test_progress_on_a_terminal(env: dict[str, str], tmp_path: Path) -> None:
    """A terminal shows a progress bar, and redirected output does not contain it."""
    file = tmp_path / "stream.jsonl"
    file.write_bytes(b"\n".join(EVENTS[:1] * 20))
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "publish", str(file), "--rate", "40"],
        env={**env, "TERM": "xterm-256color"},
        stderr=theirs,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT,
        check=True,
    )
    os.close(theirs)
    bar = os.read(ours, 100_000)
    os.close(ours)
    assert b"events" in bar
    assert b"\x1b[" in bar
    assert b"\x1b" not in done.stdout


def test_a_file_that_is_not_there(env: dict[str, str], tmp_path: Path) -> None:
    """A file that does not exist, or is a folder, ends in exit code 2 without a traceback."""
    for name in (str(tmp_path / "nothing"), str(tmp_path)):
        done = deltaloom("publish", name, env=env)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr


async def test_a_file_without_line_ends(
    redis: Redis, prefix: str, env: dict[str, str], tmp_path: Path
) -> None:
    """A line longer than an entry may be is refused without loading it whole, with a remedy."""
    file = tmp_path / "stream.jsonl"
    file.write_bytes(EVENTS[1] + b"\n" + EVENTS[2] * 1000)
    limited = {**env, "DELTALOOM_MAX_EVENT_BYTES": "1024"}
    done = deltaloom("publish", str(file), "--response-id", "r", env=limited)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "line 2 has more than 8192 bytes, which is more than an entry may have (8 times "
        "DELTALOOM_MAX_EVENT_BYTES): put one event on each line, or raise the limit; "
        "1 event before it went out\n"
    )
    assert [fields[b"event"] for fields in await entries(redis, prefix)] == [EVENTS[1]]


async def test_a_stream_of_another_provider_is_translated(
    redis: Redis, prefix: str, env: dict[str, str], tmp_path: Path
) -> None:
    """Detect the dialect, publish its events with their context, and say what was left out."""
    file = tmp_path / "chat.sse"
    file.write_bytes(body_of(SAMPLES["chat refusal"]) + b"data: {\n\n")
    done = deltaloom("publish", str(file), "--response-id", "resp_1", "--tenant", "acme", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"published 5 events in 5 entries to {prefix}:deltas as response resp_1\n"
    assert done.stderr == "translated from openai.chat\nleft out: message that is damaged JSON\n"
    found = await entries(redis, prefix)
    assert [json.loads(fields[b"event"])["type"] for fields in found] == [
        "response.created",
        *["response.refusal.delta"] * 2,
        "response.refusal.done",
        "response.completed",
    ]
    assert {name: found[-1][name] for name in (b"response_id", b"tenant", b"provider", b"dialect")} == {
        b"response_id": b"resp_1",
        b"tenant": b"acme",
        b"provider": b"openai",
        b"dialect": b"openai.chat",
    }


async def test_the_dialect_can_be_named(
    redis: Redis, prefix: str, env: dict[str, str], tmp_path: Path
) -> None:
    """Translate with the named dialect; refuse an unknown one with the known ones."""
    file = tmp_path / "stream.json"
    file.write_bytes(b'{"type": "error", "error": {"type": "overloaded_error", "message": "later"}}')
    done = deltaloom("publish", str(file), "--dialect", "anthropic.messages", "--coalesce", "9", env=env)
    assert done.returncode == 0, done.stderr
    (fields,) = await entries(redis, prefix)
    assert [event["type"] for event in json.loads(fields[b"event"])] == [
        "response.created",
        "response.failed",
    ]
    done = deltaloom("publish", str(file), "--dialect", "chat", env=env)
    assert done.returncode == 2
    assert "known are" in done.stderr
