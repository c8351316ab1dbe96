"""Tests of `deltaloom check` on real servers."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import pytest
from redis import Redis as SyncRedis

from deltaloom import Partitions
from deltaloom.streams import GROUP
from embedded.embedded_server import EmbeddedServer
from service.cli import finding_table, worker_findings
from service.keys import LEFT_OUT, Keys
from service.storage.redis_outbox import RedisOutbox
from tests.bench import Bench
from tests.mortal import MortalServer
from tests.service.cli.command import deltaloom, environment
from tests.waiting import wait_until
from tests.workers import beginning_workers, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis


def checked(env: dict[str, str]) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit code, and the state and sentence of each check by its name."""
    done = deltaloom("check", "--json", env=env)
    report = json.loads(done.stdout)
    assert report["ok"] is (done.returncode == 0)
    return done.returncode, {each["what"]: (each["state"], each["says"]) for each in report["checks"]}


async def test_with_a_worker(redis: Redis, redis_url: str, prefix: str) -> None:
    """The check reports the number of consumers, pending entries, lag and dead letters."""
    env = environment(redis_url, prefix)
    code, before = checked(env)
    assert (code, before["workers"][0]) == (0, "warn")
    async with workers_in_process(redis_url, prefix):
        await redis.xadd(f"{prefix}:deltas", {"event": "{"})
        await wait_until_settled(redis, prefix)
        code, after = checked(env)
    assert code == 0
    assert after["server"][0] == "ok"
    assert after["workers"][0] == "warn"
    assert after["workers"][1].startswith("1 consumer, 0 pending, lag 0, 1 dead letter")
    assert after["handlers"] == ("ok", "refusal, reasoning, lifecycle, stopped, fallback, loss")


async def test_fields_that_were_left_out_are_named(redis: Redis, redis_url: str, prefix: str) -> None:
    """Otherwise an operator would not notice that a server sends fields that cannot be used."""
    bench, env = Bench(redis, prefix), environment(redis_url, prefix)
    assert checked(env)[1]["left out"] == ("ok", "no field of an event")
    odd = {"type": "response.completed", "response": {"output": {}, **dict.fromkeys(("model", "id"), 5)}}
    await bench.publish(odd, {**odd, "response": {"model": 5}})
    await bench.consumer().work()
    assert checked(env)[1]["left out"] == (
        "warn",
        (
            "fields of events that cannot be used: response.completed response.model (2), "
            "response.completed response.id (1), response.completed response.output (1)"
        ),
    )
    many = [value for number in range(9) for value in (f"{LEFT_OUT}x:{number}", 3)]
    await redis.hset(Keys(bench.names).counts, items=many)
    assert checked(env)[1]["left out"][1].endswith(
        "x 8 (3), response.completed response.model (2), and 2 others"
    )


async def test_an_input_that_nobody_reads(redis: Redis, redis_url: str, prefix: str) -> None:
    """Name a missing worker, and an entry that is delivered again and again."""
    env, stream = environment(redis_url, prefix), f"{prefix}:deltas"
    await redis.xadd(stream, {"event": "{"}, id="1000-0")
    await redis.xadd(stream, {"event": "{"}, id="1001-0")
    await redis.xgroup_create(stream, GROUP, id="0")
    state, says = checked(env)[1]["workers"]
    assert (state, says.startswith("0 consumers, 0 pending, lag 2: no worker reads")) == ("warn", True)
    await redis.xgroup_createconsumer(stream, GROUP, "frozen")
    await redis.xreadgroup(GROUP, "frozen", {stream: ">"}, count=1)
    await redis.xclaim(stream, GROUP, "frozen", 0, ["1000-0"], retrycount=4)
    checks = checked(env)[1]
    assert checks["workers"] == ("ok", "1 consumer, 1 pending, lag 1")
    state, says = checks["oldest entry"]
    assert (state, "was delivered 4 times, last to frozen: does it crash" in says) == ("warn", True)


def test_a_worker_that_no_longer_reads() -> None:
    """A silent worker counts if it holds entries, or if no other reads; a trace of an ended one does not."""

    def said(*consumers: tuple[str, int, float], lag: int = 5) -> str:
        progress = worker_findings.PartitionProgress(
            [worker_findings.ConsumerSeen(*each) for each in consumers], 1, lag, 0, None
        )
        return worker_findings.workers_finding([progress], 0).says

    assert "frozen has not read for 95 s: frozen, dead, stopped, or waiting" in said(("frozen", 0, 95))
    assert "has not read" not in said(("idle", 0, 95), lag=0)
    assert "has not read" not in said(("ended", 0, 95), ("alive", 3, 0.1))
    assert "holds has not read for 95 s" in said(("holds", 2, 95), ("alive", 3, 0.1))


async def test_a_worker_that_has_stopped(redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped worker is not called frozen. Entries that wait for the first worker are counted."""
    monkeypatch.setattr(worker_findings, "_SILENT_SECONDS", -1)
    bench = Bench(redis, prefix)
    await redis.xadd(bench.names.deltas, {"event": "{"})
    (finding,) = await worker_findings.workers(redis, Partitions(prefix=prefix))
    assert finding.says.endswith("the first one makes the group; 1 entry waiting")
    worker = bench.consumer("one")
    await worker.group.ensure()
    await worker.read()
    assert await worker.group.leave() == 1
    finding, *_ = await worker_findings.workers(redis, Partitions(prefix=prefix))
    assert finding.says.startswith("1 consumer (1 stopped), 1 pending, lag 0: no worker reads the input")


async def test_the_memory_of_the_streams(redis: Redis, prefix: str) -> None:
    """Otherwise nobody could tell whether another program fills the server."""
    await redis.xadd(f"{prefix}:alerts", {"x": "y" * 3_000_000})  # servers allocate 3 MiB for it
    (finding,) = await finding_table.streams(redis, Partitions(prefix=prefix))
    assert finding.says == f"3 MiB of the memory are deltaloom's streams, 3 MiB of them {prefix}:alerts"


async def test_alerts_that_wait_for_a_destination(redis: Redis, redis_url: str, prefix: str) -> None:
    """Say how many alerts wait, and that a destination is disabled."""
    env, names = environment(redis_url, prefix), Partitions(prefix=prefix)
    assert "relays" not in checked(env)[1]
    await redis.xgroup_create(f"{prefix}:alerts", "relay:on-call", id="0", mkstream=True)
    assert checked(env)[1]["relays"] == ("ok", "on-call: no alert waits")
    assert deltaloom("alerts", "undelivered", env=env).stdout == "all were delivered\n"
    await redis.xadd(f"{prefix}:alerts", {"x": "y"}, id="1000-0")
    state, says = checked(env)[1]["relays"]
    assert (state, says.startswith("on-call: 1 alert waits, the oldest for ")) == ("warn", True)
    said = deltaloom("alerts", "undelivered", env=env).stdout
    assert said.startswith("none was given up; on-call: 1 alert waits, the oldest for ")
    await RedisOutbox(redis, names, "on-call").disable("410 Gone", datetime(2026, 1, 2, 12, tzinfo=UTC))
    assert "on-call is disabled (410 Gone): deltaloom alerts enable on-call" in checked(env)[1]["relays"][1]


def test_pretty(redis_url: str, prefix: str) -> None:
    """The default output is readable text; with --strict, a warning such as a missing worker fails."""
    done = deltaloom("check", "--strict", env=environment(redis_url, prefix))
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAIL" not in done.stdout
    assert done.stdout.split()[0] == "ok"
    assert "import names" in done.stdout


def test_what_may_not_be_asked_is_unknown() -> None:
    """Managed servers forbid INFO and CONFIG: the check then warns about these questions, and succeeds."""
    with EmbeddedServer(protected=False) as server, SyncRedis.from_url(server.url) as client:
        client.acl_setuser(
            "narrow",
            enabled=True,
            passwords=["+s3cret"],
            keys=["deltaloom:*"],
            categories=["+@all"],
            commands=["-info", "-config"],
        )
        code, checks = checked(environment(server.url.replace("redis://", "redis://narrow:s3cret@")))
    assert code == 0
    assert checks["server"][0] == "ok"
    assert "is not permitted" in checks["server"][1]
    assert "s3cret" not in json.dumps(checks)
    assert [checks[what][0] for what in ("eviction", "durability")] == ["warn", "warn"]


def test_wrong_password() -> None:
    """A wrong password is reported as such, not as a server that does not answer."""
    with EmbeddedServer(protected=False) as server, SyncRedis.from_url(server.url) as client:
        client.config_set("requirepass", "s3cret")
        code, checks = checked(environment(server.url.replace("redis://", "redis://:wrong@")))
        client.execute_command("AUTH", "s3cret")
    assert code == 1
    assert checks["server"][0] == "fail"
    assert "password" in checks["server"][1]


async def test_an_input_that_is_no_stream(redis: Redis, redis_url: str, prefix: str) -> None:
    """An input key of another type fails the check, because no worker could read it."""
    await redis.set(f"{prefix}:deltas", "x", ex=60)
    code, checks = checked(environment(redis_url, prefix))
    assert (code, checks["workers"][0]) == (1, "fail")


@pytest.mark.parametrize(
    "right",
    [{"commands": ["-@scripting"], "keys": ["*"]}, {"keys": ["deltaloom:deltas"]}],
    ids=["scripts", "keys"],
)
async def test_a_user_without_the_rights_of_a_worker(right: dict[str, list[str]]) -> None:
    """A missing permission fails the check, and a worker waits for an operator instead of the server."""
    with EmbeddedServer(protected=False) as server, SyncRedis.from_url(server.url) as client:
        client.acl_setuser("narrow", enabled=True, nopass=True, categories=["+@all"], **right)
        url = server.url.replace("redis://", "redis://narrow:any@")
        code, checks = checked(environment(url))
        async with beginning_workers(url, "deltaloom") as (worker,):
            waits = partial(worker.has_logged, "redis misconfigured, waiting for an operator")
            await wait_until(waits, 30, message="the worker waits for an operator")
            assert not worker.has_logged("redis unavailable, retrying")
    assert (code, checks["scripts"][0]) == (1, "fail")
    assert checks["scripts"][1].startswith("NOPERM")
    assert checks["scripts"][1].endswith(
        "This is the user narrow: use --read-only if workers have another one"
    )
    assert "docs/operations.md" in checks["scripts"][1]


async def test_a_server_that_hangs(tmp_path: Path) -> None:
    """The check gives up after five seconds, and says that the server hangs."""
    server = await MortalServer(tmp_path).start()
    try:
        server.hang()
        began = time.monotonic()
        code, checks = await asyncio.to_thread(checked, environment(server.url))
        assert 5 <= time.monotonic() - began < 15
        assert code == 1
        assert "has not answered in 5 seconds: it hangs or is overloaded" in checks["server"][1]
    finally:
        await server.kill()
