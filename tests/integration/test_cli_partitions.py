"""Tests of the sub-commands with several partitions."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import Partitions
from tests.service.cli.command import deltaloom, environment
from tests.streams import add, entries
from tests.waiting import wait_until
from tests.workers import workers_in_process

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

COUNT = 4
IDS = [f"resp_{number}" for number in range(8)]
PART: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


@pytest.fixture
def partitions(prefix: str) -> Partitions:
    """Return the names of the streams of all partitions."""
    return Partitions(COUNT, prefix)


@pytest.fixture
def env(redis_url: str, prefix: str) -> dict[str, str]:
    """Return the environment of the command."""
    return environment(redis_url, prefix, DELTALOOM_PARTITIONS=str(COUNT))


def refusal(text: str, **more: Any) -> str:
    """Return a `response.refusal.done` event as JSON."""
    return json.dumps({"type": "response.refusal.done", "refusal": text, **PART, **more})


async def test_publish_picks_the_partition(
    redis: Redis, partitions: Partitions, env: dict[str, str], tmp_path: Path
) -> None:
    """`publish` writes each response to its own partition, which is the one its workers read."""
    file = tmp_path / "stream.jsonl"
    lines = [line for each in IDS for line in (_created(each), refusal(each))]
    file.write_text("\n".join(lines))
    done = deltaloom("publish", str(file), env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "to 4 partitions as 8 responses resp_0, " in done.stdout
    for names in partitions.all:
        ids = [fields[b"response_id"].decode() for _, fields in await entries(redis, names.deltas)]
        assert ids == [each for each in IDS if partitions.of(each) == names for _ in range(2)]
    again = deltaloom("publish", str(file), "--response-id", "resp_0", env=env)
    assert f"to {partitions.of('resp_0').deltas} as response resp_0\n" in again.stdout


def _created(response_id: str) -> str:
    return json.dumps({"type": "response.created", "response": {"id": response_id}})


async def test_show_and_tail(
    redis: Redis, redis_url: str, partitions: Partitions, env: dict[str, str]
) -> None:
    """`show` and `tail` read all partitions."""
    async with workers_in_process(redis_url, partitions.prefix, partitions=COUNT):
        for each in IDS:
            fields = {"event": refusal(each, item_id=f"msg_of_{each}"), "response_id": each}
            await add(redis, partitions.of(each).deltas, fields)
        for each in IDS:
            await wait_until(partial(redis.exists, partitions.of(each).item(each, 0)), 30)
    for name in ("resp_2", "msg_of_resp_2"):
        known = json.loads(deltaloom("show", name, "--json", env=env).stdout)
        assert (known["id"], [text["text"] for text in known["texts"]]) == ("resp_2", ["resp_2"])
    assert deltaloom("show", "nobody", env=env).returncode == 1
    tail = deltaloom("tail", "assembled", "--from-start", "--count", str(len(IDS)), "--json", env=env)
    assert sorted(json.loads(line)["text"] for line in tail.stdout.splitlines()) == IDS
    for arguments in (("--json",), ()):
        tail = deltaloom("tail", "deltas", "--from-start", "--count", str(len(IDS)), *arguments, env=env)
        assert (tail.returncode, tail.stderr) == (0, "")
        for each in IDS:
            assert f"{partitions.of(each).partition}:" in tail.stdout
            assert each in tail.stdout


async def test_check(redis: Redis, redis_url: str, partitions: Partitions, env: dict[str, str]) -> None:
    """`check` names the partitions that no worker serves."""

    def workers() -> dict[str, str]:
        checks = json.loads(deltaloom("check", "--json", env=env).stdout)["checks"]
        (found,) = [each for each in checks if each["what"] == "workers"]
        return dict(found)

    prefix = partitions.prefix
    assert f"no worker has read {prefix}:{{0}}:deltas (nor 3 other partitions) yet" in workers()["says"]
    async with workers_in_process(redis_url, prefix, partitions=COUNT, serve_partitions="0-2"):
        assert f"no worker has read {prefix}:{{3}}:deltas yet" in workers()["says"]
        async with workers_in_process(redis_url, prefix, partitions=COUNT, serve_partitions="3"):
            for names in partitions.all:
                await add(redis, names.deltas, {"event": "{"})
                await wait_until(partial(redis.exists, names.dead_letters), 30)
            assert workers()["says"].startswith(
                "4 consumers in 4 partitions, 0 pending, lag 0, 4 dead letters"
            )
        found = workers()
        assert (found["state"], found["says"].split(", ")[-1]) == ("warn", "1 partition without a consumer")


async def test_dead_letters(
    redis: Redis, redis_url: str, partitions: Partitions, env: dict[str, str]
) -> None:
    """The partition is part of a dead letter's id, so that it is replayed into its own partition."""
    async with workers_in_process(redis_url, partitions.prefix, partitions=COUNT):
        for number, names in enumerate(partitions.all):
            await add(redis, names.deltas, {"event": "{", "tenant": str(number)})
            await wait_until(partial(redis.exists, names.dead_letters), 30)
    listed = deltaloom("dead-letters", "list", "--json", env=env).stdout.splitlines()
    ids = [json.loads(line)["id"] for line in listed]
    assert [each.split(":")[0] for each in ids] == ["3", "2", "1", "0"]
    shown = json.loads(deltaloom("dead-letters", "show", ids[1], "--json", env=env).stdout)
    assert (shown["id"], json.loads(shown["entry"])["tenant"]) == (ids[1], "2")
    done = deltaloom("dead-letters", "replay", ids[1], env=env)
    assert done.stdout.startswith(f"{ids[1]} is back on the input as 2:")
    assert (await entries(redis, partitions.all[2].deltas))[-1][1][b"tenant"] == b"2"
    assert await entries(redis, partitions.all[2].dead_letters) == []
    assert deltaloom("dead-letters", "drop", ids[0], ids[3], env=env).stdout == "2 removed\n"
    assert deltaloom("dead-letters", "drop", "--all", "--yes", env=env).stdout == "1 removed\n"
    for wrong, why in (
        (ids[0].split(":")[1], "an id is written like 3:1763764863123-0"),
        ("4:1-0", "partitions are 0 to 3"),
    ):
        refused = deltaloom("dead-letters", "show", wrong, env=env)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
        assert why in refused.stderr
    plain = deltaloom("dead-letters", "show", "0:1-0", env={**env, "DELTALOOM_PARTITIONS": "0"})
    assert "an id is written without its partition" in plain.stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("0-9", "partitions from 0 to 3, of DELTALOOM_PARTITIONS=4"),
        ("nix", "numbers and ranges of partitions, like 0-3 or 0,2,5-7"),
    ],
)
def test_wrong_partitions_end_the_worker(given: str, says: str) -> None:
    """A worker with partitions that do not exist ends with exit code 2 and one line."""
    done = deltaloom("worker", "--partitions", given, env=environment(DELTALOOM_PARTITIONS="4"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert says in done.stderr
