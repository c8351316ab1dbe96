"""Tests of the note of the state's format: workers refuse a newer state, and `check` shows the format."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import Partitions, StreamNames
from service.storage.scripts import Script
from service.storage.state_format import FORMAT, MIN_READER, FormatNote, StateFormat, StateFormatError
from tests.service.cli.command import deltaloom, deltaloom_process, environment
from tests.waiting import wait_until
from tests.workers import beginning_workers, workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

NEWER: Any = {
    "version": str(FORMAT + 1),
    "min_reader": str(FORMAT + 1),
    "written_by": "deltaloom-worker 9.0.0",
}


async def noted(redis: Redis, key: str) -> dict[str, str]:
    """Return the fields of the format note."""
    fields: Any = await redis.hgetall(key)
    return {name.decode(): value.decode() for name, value in fields.items()}


@pytest.fixture
def key(prefix: str) -> str:
    """Return the key of the format note."""
    return StreamNames(prefix).name("format")


async def test_the_first_worker_notes_it_and_again_after_a_flush(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """The first worker writes the format note, and workers write it again after a flush."""
    async with workers_in_process(redis_url, prefix, partitions=2, claim_time=1):
        keys = [names.name("format") for names in Partitions(2, prefix).all]
        for each in keys:
            assert await noted(redis, each) == {
                "version": str(FORMAT),
                "min_reader": str(MIN_READER),
                "written_by": f"deltaloom-worker {version('deltaloom-worker')}",
            }
        await redis.delete(*await redis.keys(f"{prefix}*"))

        async def noted_again() -> bool:
            return await redis.exists(*keys) == len(keys)

        await wait_until(noted_again, message="the notes are there again")


@pytest.mark.parametrize(
    "there",
    [
        NEWER,
        {**NEWER, "written_by": "two\nlines " * 1000},
        {**NEWER, "written_by": "\x1b[31mred\u202e"},
        {"version": "1"},
        {"version": "1", "min_reader": "one"},
        {"version": "9" * 5000, "min_reader": "1"},
        "a string",
    ],
    ids=[
        "newer",
        "newer, long name",
        "newer, control characters",
        "without min_reader",
        "no number",
        "long number",
        "no hash",
    ],
)
async def test_it_refuses_what_it_cannot_read(redis: Redis, key: str, there: Any) -> None:
    """A worker refuses a note that it cannot read or does not understand, and leaves it unchanged."""
    if isinstance(there, str):
        await redis.set(key, there, ex=60)
    else:
        await redis.hset(key, mapping=there)
    before = await redis.dump(key)
    state_format = StateFormat(redis, key)
    for step in (state_format.write_note, state_format.read):
        with pytest.raises(StateFormatError, match=f"^{key}: .*reads.*upgrade it") as refusal:
            await step()
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 400
    assert await redis.dump(key) == before
    await redis.delete(key)


async def test_a_lower_version_is_raised(redis: Redis, key: str) -> None:
    """A worker raises a lower version, so that older workers stop."""
    earlier: Any = {"version": "0", "min_reader": "0", "written_by": "an earlier one"}
    await redis.hset(key, mapping=earlier)
    await StateFormat(redis, key).write_note()
    found = await StateFormat(redis, key).read()
    assert found is not None
    assert (found.version, found.min_reader) == (FORMAT, MIN_READER)
    assert found.written_by.startswith("deltaloom-worker ")


async def test_a_higher_version_that_can_be_read_stays(redis: Redis, key: str) -> None:
    """A worker keeps a higher version that allows it to read."""
    later = FormatNote(FORMAT + 1, MIN_READER, "a later one")
    fields: Any = later._asdict()
    await redis.hset(key, mapping=fields)
    await StateFormat(redis, key).write_note()
    assert await StateFormat(redis, key).read() == later


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ("3", "2", "me")),
        (("2", "1", "it"), ("3", "2", "me")),
        (("2", "3", "it"), ("3", "3", "me")),
        (("3", "1", "it"), ("3", "1", "it")),
        (("4", "3", "it"), ("4", "3", "it")),
        (("2", "4", "it"), ("2", "4", "it")),
        (("2", "x", "it"), ("2", "x", "it")),
        (("2x", "1", "it"), ("2x", "1", "it")),
        (("2", "1" * 10, "it"), ("2", "1" * 10, "it")),
        (("2", "000000001", "it"), ("3", "2", "me")),
    ],
)
async def test_what_a_worker_of_format_3_for_readers_of_2_notes(
    redis: Redis, key: str, before: tuple[str, str, str] | None, after: tuple[str, str, str]
) -> None:
    """The script writes the note only over a readable lower version, and never lowers `min_reader`."""
    names = ("version", "min_reader", "written_by")
    if before is not None:
        fields: Any = dict(zip(names, before, strict=True))
        await redis.hset(key, mapping=fields)
    reply = await Script(redis, "state_format")(keys=[key], args=[3, 2, "me"])
    assert reply == [[] if before is None else [value.encode() for value in before]]
    assert await noted(redis, key) == dict(zip(names, after, strict=True))


async def test_a_worker_does_not_start(redis: Redis, redis_url: str, prefix: str, key: str) -> None:
    """A worker does not start with a newer format, and names both formats in one line."""
    await redis.hset(key, mapping=NEWER)
    done = await asyncio.to_thread(deltaloom_process, "worker", env=environment(redis_url, prefix))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if key in line]
    for part in (f"format {FORMAT + 1}", f"reads {FORMAT}", "deltaloom-worker 9.0.0", "DELTALOOM_PREFIX"):
        assert part in line
    assert "Traceback" not in done.stderr
    assert await redis.keys(f"{prefix}*") == [key.encode()]


async def test_a_running_worker_stops(redis: Redis, redis_url: str, prefix: str, key: str) -> None:
    """A running worker stops when a newer worker raises the format."""
    async with beginning_workers(redis_url, prefix, claim_time=1) as (worker,):
        await wait_until(lambda: "worker started" in worker.log.read_text(), 30)
        await redis.hset(key, mapping=NEWER)
        assert await asyncio.wait_for(worker.process.wait(), 30) == 2
        assert f"{key}: the state has format" in worker.log.read_text()


async def test_check(redis: Redis, redis_url: str, prefix: str, key: str) -> None:
    """`deltaloom check` shows the format, and fails if this version cannot read it."""

    async def found() -> tuple[int, str, str]:
        done = await asyncio.to_thread(deltaloom, "check", "--json", env=environment(redis_url, prefix))
        checks = {each["what"]: each for each in json.loads(done.stdout)["checks"]}
        return done.returncode, checks["state format"]["state"], checks["state format"]["says"]

    assert await found() == (0, "ok", f"none yet; the first worker notes format {FORMAT}")
    await StateFormat(redis, key).write_note()
    assert await found() == (
        0,
        "ok",
        f"format {FORMAT}, written by deltaloom-worker {version('deltaloom-worker')}",
    )
    await redis.hset(key, mapping=NEWER)
    code, state, says = await found()
    assert (code, state) == (1, "fail")
    assert says.startswith(f"{key}: the state has format {FORMAT + 1}")
