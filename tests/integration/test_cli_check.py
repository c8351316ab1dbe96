"""`deltaloom check` on real servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from redis import Redis as SyncRedis

from service.embedded import EmbeddedServer
from service.keys import LEFT_OUT, Keys
from tests.bench import Bench
from tests.service.cli.command import deltaloom, environment
from tests.workers import running_workers, wait_until_settled

if TYPE_CHECKING:
    from redis.asyncio import Redis


def checked(env: dict[str, str]) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and of each question the state and the sentence."""
    done = deltaloom("check", "--json", env=env)
    told = json.loads(done.stdout)
    assert told["ok"] is (done.returncode == 0)
    return done.returncode, {each["what"]: (each["state"], each["says"]) for each in told["checks"]}


async def test_with_a_worker(redis: Redis, redis_url: str, prefix: str) -> None:
    """One could not see whether the workers keep up."""
    env = environment(redis_url, prefix)
    code, before = checked(env)
    assert (code, before["workers"][0]) == (0, "warn")
    async with running_workers(redis_url, prefix):
        await redis.xadd(f"{prefix}:deltas", {"event": "{"})
        await wait_until_settled(redis, prefix)
        code, after = checked(env)
    assert code == 0
    assert after["server"][0] == "ok"
    assert after["workers"][0] == "warn"
    assert after["workers"][1].startswith("1 consumer, 0 pending, lag 0, 1 dead letter")
    assert after["handlers"] == ("ok", "refusal, reasoning, lifecycle, stopped, loss")


async def test_fields_that_were_left_out_are_named(redis: Redis, redis_url: str, prefix: str) -> None:
    """Otherwise nobody would see that a server sends what cannot be used."""
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
    """A person would have to read JSON."""
    done = deltaloom("check", env=environment(redis_url, prefix))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == "ok"
    assert "import names" in done.stdout


def test_what_may_not_be_asked_is_unknown() -> None:
    """On a managed server, which forbids INFO and CONFIG, the check would fail."""
    with EmbeddedServer(protected=False) as server, SyncRedis.from_url(server.url) as client:
        client.acl_setuser(
            "narrow",
            enabled=True,
            passwords=["+s3cret"],
            keys=["deltaloom:*"],
            categories=["+@all"],
            commands=["-info", "-config"],
        )
        code, told = checked(environment(server.url.replace("redis://", "redis://narrow:s3cret@")))
    assert code == 0
    assert told["server"][0] == "ok"
    assert "may not be asked" in told["server"][1]
    assert "s3cret" not in json.dumps(told)
    assert [told[what][0] for what in ("eviction", "durability")] == ["warn", "warn"]


def test_wrong_password() -> None:
    """A wrong password would look like a server that is away."""
    with EmbeddedServer(protected=False) as server, SyncRedis.from_url(server.url) as client:
        client.config_set("requirepass", "s3cret")
        code, told = checked(environment(server.url.replace("redis://", "redis://:wrong@")))
        client.execute_command("AUTH", "s3cret")
    assert code == 1
    assert told["server"][0] == "fail"
    assert "password" in told["server"][1]


async def test_an_input_that_is_no_stream(redis: Redis, redis_url: str, prefix: str) -> None:
    """A worker would be called healthy that cannot read its input."""
    await redis.set(f"{prefix}:deltas", "x", ex=60)
    code, told = checked(environment(redis_url, prefix))
    assert (code, told["workers"][0]) == (1, "fail")
