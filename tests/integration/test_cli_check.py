"""Tests of `deltaloom check` on real servers."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
from redis import Redis as SyncRedis

from embedded.embedded_server import EmbeddedServer
from service.keys import LEFT_OUT, Keys
from tests.bench import Bench
from tests.service.cli.command import deltaloom, environment
from tests.waiting import wait_until
from tests.workers import beginning_workers, wait_until_settled, workers_in_process

if TYPE_CHECKING:
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
    assert after["handlers"] == ("ok", "refusal, reasoning, lifecycle, stopped, loss")


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


def test_pretty(redis_url: str, prefix: str) -> None:
    """The default output is readable text."""
    done = deltaloom("check", env=environment(redis_url, prefix))
    assert (done.returncode, done.stderr) == (0, "")
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
    assert "docs/operations.md" in checks["scripts"][1]
