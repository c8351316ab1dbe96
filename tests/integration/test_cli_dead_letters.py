"""Tests of `deltaloom dead-letters` on a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import DeadLetter, StreamNames
from service.field_json import fields_of
from service.storage.letter_store import MAX_FIELDS, DeadLetters
from service.storage.pages import PAGE, entries_of
from tests.service.cli.command import COMMAND, TIMEOUT, deltaloom, environment
from tests.streams import add as add_entry
from tests.streams import letter_fields
from tests.workers import dead_letters, texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

ORIGINAL = {"event": '{"type":', "response_id": "resp_1", "raw": {"base64": "/w=="}}
FIELDS = {b"event": b'{"type":', b"response_id": b"resp_1", b"raw": b"\xff"}


@pytest.fixture
def env(redis_url: str, prefix: str) -> dict[str, str]:
    """Return the environment of the command."""
    return environment(redis_url, prefix)


async def add(redis: Redis, prefix: str, letter_id: str, **changed: Any) -> None:
    """Add a dead letter; `changed` replaces some of its fields."""
    letter = DeadLetter(
        source="deltaloom",
        **{
            "reason": "malformed_json",
            "error": "not JSON at character 8",
            "stream": f"{prefix}:deltas",
            "entry_id": "1-0",
            "deliveries": 1,
            "failed_at": datetime(2026, 1, 2, tzinfo=UTC),
            "entry": json.dumps(ORIGINAL),
            **changed,
        },
    )
    await add_entry(redis, StreamNames(prefix).dead_letters, letter_fields(letter, prefix), letter_id)


async def left(redis: Redis, prefix: str) -> list[str]:
    """Return the ids of the dead letters that remain."""
    return [letter_id for letter_id, _ in entries_of(await redis.xrange(f"{prefix}:dead-letters"))]


async def on_input(redis: Redis, prefix: str) -> list[dict[bytes, bytes]]:
    """Return the fields of the entries on the input."""
    return [fields for _, fields in entries_of(await redis.xrange(f"{prefix}:deltas"))]


async def test_list(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`list` shows the newest dead letters first, and can be limited to a number or a reason."""
    await add(redis, prefix, "1-0")
    await add(redis, prefix, "2-0", reason="invalid_event", error="bad\x1b[2J")
    await add(redis, prefix, "3-0")
    lines = deltaloom("dead-letters", "list", env=env).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "3-0", "2-0", "1-0", "3"]
    assert "bad\\x1b[2J" in lines[2]
    assert lines[-1] == "3 of 3 dead letters"
    assert [line for line in lines if line != line.rstrip()] == []
    assert deltaloom("dead-letters", "list", "--limit", "1", env=env).stdout.endswith("1 of 3 dead letters\n")
    chosen = deltaloom("dead-letters", "list", "--reason", "invalid_event", "--json", env=env).stdout
    assert [json.loads(line)["id"] for line in chosen.splitlines()] == ["2-0"]
    assert deltaloom("dead-letters", "list", "--reason", "nix", env=env).returncode == 2


def test_list_of_none(env: dict[str, str]) -> None:
    """`list` without dead letters succeeds, and prints that there are none."""
    done = deltaloom("dead-letters", "list", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no dead letters\n", "")


async def test_show(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`show` prints the entry that the producer sent, with control characters escaped."""
    await add(redis, prefix, "1-0", entry=json.dumps({"event": '{"type":"x","delta":"\\u001b[2J"}'}))
    shown = deltaloom("dead-letters", "show", "1-0", env=env).stdout
    assert "malformed_json" in shown
    assert '    "type": "x",\n' in shown
    assert "\x1b" not in shown
    letter = json.loads(deltaloom("dead-letters", "show", "1-0", "--json", env=env).stdout)
    assert letter.pop("id") == "1-0"
    assert DeadLetter.model_validate(letter).reason == "malformed_json"
    for wrong, code in (("9-9", 1), ("nix", 2)):
        assert deltaloom("dead-letters", "show", wrong, env=env).returncode == code


async def test_replay_by_id(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`replay` puts the original fields back on the input once, and removes the dead letter."""
    await add(redis, prefix, "1-0")
    await add(redis, prefix, "2-0")
    done = deltaloom("dead-letters", "replay", "1-0", env=env)
    assert done.stdout.startswith("1-0 is back on the input as ")
    assert await on_input(redis, prefix) == [FIELDS]
    assert await left(redis, prefix) == ["2-0"]
    again = deltaloom("dead-letters", "replay", "1-0", "2-0", env=env)
    assert (again.returncode, again.stderr) == (1, "no such dead letter (any more): 1-0\n")
    assert await on_input(redis, prefix) == [FIELDS, FIELDS]
    assert await left(redis, prefix) == []


async def test_replay_all_of_a_reason(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`replay --all --reason` leaves the dead letters of other reasons alone."""
    await add(redis, prefix, "1-0")
    await add(redis, prefix, "2-0", reason="handler_error")
    done = deltaloom("dead-letters", "replay", "--all", "--reason", "handler_error", env=env)
    assert done.stdout == "1 back on the input\n"
    assert await left(redis, prefix) == ["1-0"]


async def test_a_letter_that_cannot_be_replayed_keeps_no_other(
    redis: Redis, prefix: str, env: dict[str, str]
) -> None:
    """A dead letter that cannot be replayed is named with the reason, and does not block the others."""
    for number, fields in enumerate((MAX_FIELDS + 1, 10_000, 0, MAX_FIELDS), 1):
        await add(redis, prefix, f"{number}-0", entry=json.dumps({f"f{n}": "x" for n in range(fields)}))
    await add(redis, prefix, "5-0", entry="changed")
    await add(redis, prefix, "6-0")
    await add(redis, prefix, "7-0", entry_bytes=17_000_000)
    done = deltaloom("dead-letters", "replay", "--all", env=env)
    assert (done.returncode, done.stdout) == (1, "2 back on the input\n")
    why = "fields; only 1 to 3900 are possible"
    assert done.stderr.splitlines() == [
        f"1-0 cannot be put back: its entry has 3901 {why}",
        f"2-0 cannot be put back: its entry has 10000 {why}",
        f"3-0 cannot be put back: its entry has 0 {why}",
        "5-0 cannot be put back: its entry cannot be read",
        (
            "7-0 cannot be put back: its entry had 17,000,000 bytes, and only the first are kept; "
            "publish it again, in smaller entries"
        ),
        "5 dead letters cannot be put back (show has the entry)",
    ]
    assert [len(fields) for fields in await on_input(redis, prefix)] == [MAX_FIELDS, len(FIELDS)]
    assert await left(redis, prefix) == ["1-0", "2-0", "3-0", "5-0", "7-0"]
    assert (
        "17,000,000, of which only the first are kept"
        in deltaloom("dead-letters", "show", "7-0", env=env).stdout
    )


async def test_concurrent_replays(redis: Redis, prefix: str) -> None:
    """Otherwise two people who replay at the same time would put the entry back twice."""
    await add(redis, prefix, "1-0")
    letters = DeadLetters(redis, StreamNames(prefix))
    fields = fields_of(json.dumps(ORIGINAL))
    results = await asyncio.gather(*(letters.replay("1-0", fields) for _ in range(20)))
    assert len([entry_id for entry_id in results if entry_id is not None]) == 1
    assert await on_input(redis, prefix) == [FIELDS]


async def test_a_replay_that_fails_keeps_the_letter(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """A dead letter is removed only if its entry is back on the input."""
    await add(redis, prefix, "1-0")
    await redis.set(f"{prefix}:deltas", "no stream", ex=60)
    done = deltaloom("dead-letters", "replay", "--all", env=env)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "WRONGTYPE" in done.stderr
    assert await left(redis, prefix) == ["1-0"]


async def test_all_means_those_that_are_there_now(redis: Redis, prefix: str) -> None:
    """`--all` stops at the letters present at its start.

    Otherwise replaying broken entries would never end.
    """
    for number in range(1, PAGE + 3):
        await add(redis, prefix, f"{number}-0")
    letters = DeadLetters(redis, StreamNames(prefix))
    seen = []
    async for stored in letters.oldest_first():
        seen.append(stored.id)
        await add(redis, prefix, f"{stored.id.partition('-')[0]}9999-0") if len(seen) == PAGE else None
    assert seen == [f"{number}-0" for number in range(1, PAGE + 3)]
    assert len([stored async for stored in letters.newest_first()]) == PAGE + 3


async def test_a_worker_takes_what_was_replayed(
    redis: Redis, redis_url: str, prefix: str, env: dict[str, str]
) -> None:
    """A worker handles a replayed entry like a new one."""
    event = (
        '{"type":"response.refusal.done","refusal":"No.","item_id":"m","output_index":0,"content_index":0}'
    )
    await add(redis, prefix, "*", entry=json.dumps({"event": event}))
    async with workers_in_process(redis_url, prefix):
        assert deltaloom("dead-letters", "replay", "--all", env=env).returncode == 0
        await wait_until_settled(redis, prefix)
    assert [text.text for text in await texts(redis, prefix)] == ["No."]
    assert await dead_letters(redis, prefix) == []


async def test_drop(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`drop` removes only the letters that were named or chosen; `--all` without a terminal needs `--yes`."""
    for number in (1, 2, 3):
        await add(redis, prefix, f"{number}-0", reason="oversized" if number == 2 else "malformed_json")
    done = deltaloom("dead-letters", "drop", "1-0", "9-0", env=env)
    assert (done.returncode, done.stdout) == (1, "1 removed\n")
    assert await left(redis, prefix) == ["2-0", "3-0"]
    for wrong in ([], ["--all"], ["2-0", "--all"], ["2-0", "--reason", "oversized"]):
        assert deltaloom("dead-letters", "drop", *wrong, env=env).returncode == 2
    assert await left(redis, prefix) == ["2-0", "3-0"]
    assert (
        deltaloom("dead-letters", "drop", "--all", "--reason", "oversized", "--yes", env=env).returncode == 0
    )
    assert await left(redis, prefix) == ["3-0"]
    assert deltaloom("dead-letters", "drop", "--all", "--yes", env=env).stdout == "1 removed\n"
    assert await left(redis, prefix) == []


def answered(env: dict[str, str], answer: bytes) -> int:
    """Run `drop --all` on a terminal, type this answer, and return the exit code."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "dead-letters", "drop", "--all"], env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        code = process.wait(TIMEOUT)
    os.close(ours)
    return code


async def test_drop_all_asks_on_a_terminal(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`drop --all` asks for confirmation on a terminal."""
    await add(redis, prefix, "1-0")
    assert answered(env, b"n\n") == 1
    assert await left(redis, prefix) == ["1-0"]
    assert answered(env, b"y\n") == 0
    assert await left(redis, prefix) == []


async def test_entries_of_others(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """Foreign entries on the stream are listed as such, and never block the commands."""
    await redis.xadd(f"{prefix}:dead-letters", {"x": "y"}, id="1-0")
    await add(redis, prefix, "2-0")
    await redis.xadd(f"{prefix}:dead-letters", {b"\xff": b"\xff", b"reason": b"x"}, id="99999999999999999-0")
    done = deltaloom("dead-letters", "list", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("deltaloom did not write this entry") == 2
    shown = deltaloom("dead-letters", "show", "1-0", "--json", env=env)
    assert json.loads(json.loads(shown.stdout)["entry"]) == {"x": "y"}
    put_back = deltaloom("dead-letters", "replay", "--all", env=env)
    assert put_back.returncode == 1
    assert put_back.stdout == "1 back on the input\n"
    assert "1-0 cannot be put back: deltaloom did not write this entry\n" in put_back.stderr
    assert await left(redis, prefix) == ["1-0", "99999999999999999-0"]
    assert deltaloom("dead-letters", "drop", "--all", "--yes", env=env).returncode == 0
    assert await left(redis, prefix) == []
