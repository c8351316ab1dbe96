"""Upgrades from v0.1.0, and back: nothing is lost, every text comes once, everybody is told.

The input is what both versions read. What v0.1.0 does not know is in the tests at the end.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import service.demo
from deltaloom import StreamNames
from tests.client.schemas import validator
from tests.relays import SECRETS, destination, raise_alert, undelivered, wait_until_settled
from tests.service.cli.command import deltaloom
from tests.service.cli.command import environment as command_environment
from tests.streams import entries
from tests.upgrade.processes import NOW, Side, Version, kill, read_by, release
from tests.waiting import wait_until
from tests.webhook_receiver import receiving
from tests.workers import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.timeout(240)

STREAMS = Path(service.demo.__file__).parent / "streams"
COPIES = 3
"""Of each stream, under names of their own."""

SETTINGS: dict[str, object] = {
    "batch_size": 10,  # so that a kill comes between two batches
    "block_ms": 200,
    "claim_time": 1,
    "lease_time": 1,
    "idle_timeout": 3,
    "sweep_interval": 0.1,
    "handlers": "refusal,reasoning,lifecycle,stopped",
}

ONCE = ("type", "response_id", "item_id", "kind", "text", "status", "reason", "integrity")
"""The fields of v0.1.0 that depend on the input alone, whoever reads it."""


class Results(NamedTuple):
    """What came out."""

    texts: dict[str, tuple[Any, ...]]
    """The fields that must be the same, by id."""
    alerts: set[str]
    """The ids."""
    dead_letters: Counter[tuple[str, str]]
    """By what was wrong."""
    messages: list[tuple[str, str]]
    """All texts and alerts: the model, and the JSON."""


@pytest.fixture(scope="module")
def v010() -> Version:
    """Return v0.1.0."""
    return release("v0.1.0")


@pytest.fixture
def side(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> Side:
    """Return where programs of both versions meet."""
    return Side(redis, redis_url, prefix, tmp_path, **SETTINGS)


_reference: dict[str, Results] = {}
"""What v0.1.0 alone makes of the input; found once."""


@pytest.fixture
async def reference(redis: Redis, redis_url: str, prefix: str, tmp_path: Path, v010: Version) -> Results:
    """Return what v0.1.0 alone makes of the input."""
    if not _reference:
        side = Side(redis, redis_url, f"{prefix}-reference", tmp_path, **SETTINGS)
        async with side.running(v010, "worker"):
            await publish(side)
            await wait_until_over(side)
        _reference["v0.1.0"] = await results(side)
    return _reference["v0.1.0"]


async def publish(side: Side) -> None:
    """Publish the events of all streams, interleaved as in every run; at once, so that none falls idle."""
    order = random.Random("upgrade")
    left = {
        f"{path.stem}-{copy}": path.read_text("utf-8").splitlines()[::-1]
        for path in sorted(STREAMS.glob("*.jsonl"))
        for copy in range(COPIES)
    }
    interleaved: list[tuple[str, str]] = []
    while left:
        name = order.choice(sorted(left))
        interleaved.append((name, left[name].pop()))
        if not left[name]:
            del left[name]
    pipeline = side.redis.pipeline(transaction=False)
    for name, event in interleaved:
        pipeline.xadd(StreamNames(side.prefix).deltas, {"event": event, "response_id": name})
    await pipeline.execute()


async def wait_until_over(side: Side) -> None:
    """Wait until everything is read, finished or given up."""

    async def over() -> bool:
        opened = StreamNames(side.prefix).name("open")
        return await settled(side.redis, side.prefix) and not await side.redis.zcard(opened)

    await wait_until(over, 60, message="everything is read, finished or given up")


async def some_came_out(side: Side) -> None:
    """Wait until the first texts have come out."""

    async def came_out() -> bool:
        return await side.redis.xlen(StreamNames(side.prefix).assembled) > 0

    await wait_until(came_out, 30, message="texts come out", interval=0.001)


async def results(side: Side) -> Results:
    """Return what came out; fail if something came twice, or is not as the schemas say."""
    names = StreamNames(side.prefix)
    written: list[tuple[str, str]] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for model, stream in (("AssembledText", names.assembled), ("ModerationAlert", names.alerts)):
        data = [fields[b"__data__"].decode() for _, fields in await entries(side.redis, stream)]
        written += [(model, each) for each in data]
        found[model] = [json.loads(each) for each in data]
        schema = validator(model)
        for message in found[model]:
            schema.validate(message)
        ids = Counter(message["id"] for message in found[model])
        assert [each for each, times in ids.items() if times > 1] == [], "came twice"
    letters = [fields for _, fields in await entries(side.redis, names.dead_letters)]
    return Results(
        {text["id"]: tuple(text[name] for name in ONCE) for text in found["AssembledText"]},
        {alert["id"] for alert in found["ModerationAlert"]},
        Counter((fields[b"reason"].decode(), fields[b"error"].decode()) for fields in letters),
        written,
    )


def assert_the_same(found: Results, reference: Results) -> None:
    """Compare in steps, for a message that can be read."""
    assert reference.texts
    assert reference.alerts
    assert reference.dead_letters
    assert found.texts.keys() == reference.texts.keys(), "texts are lost, or made up"
    assert found.texts == reference.texts
    assert found.alerts == reference.alerts
    assert found.dead_letters == reference.dead_letters


async def test_the_same_comes_out_and_each_library_reads_it(
    side: Side, reference: Results, v010: Version
) -> None:
    """Workers and subscribers could only be upgraded together."""
    async with side.running(NOW, "worker"):
        await publish(side)
        await wait_until_over(side)
    found = await results(side)
    assert_the_same(found, reference)
    assert await read_by(v010, found.messages) == ""
    assert await read_by(NOW, reference.messages) == ""


@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "rollback"])
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_one_version_goes_on_where_the_other_ended(
    side: Side,
    reference: Results,
    v010: Version,
    *,
    back: bool,
    killed: bool,
) -> None:
    """Open texts of one version would be lost, cut in two or written again by the other."""
    first, second = (NOW, v010) if back else (v010, NOW)
    await publish(side)
    async with side.running(first, "worker") as worker:
        await some_came_out(side)
        if killed:
            await kill(worker)
    assert not await settled(side.redis, side.prefix), "nothing is left to do for the second one"
    async with side.running(second, "worker"):
        await wait_until_over(side)
    assert_the_same(await results(side), reference)


@pytest.mark.parametrize("victim", ["v0.1.0", "now"])
async def test_both_in_one_group(
    side: Side,
    reference: Results,
    v010: Version,
    victim: str,
) -> None:
    """While workers are replaced one by one, both versions work on the same responses."""
    async with side.running(v010, "worker") as old, side.running(NOW, "worker") as new:
        await publish(side)
        await some_came_out(side)
        await kill(old if victim == "v0.1.0" else new)
        async with side.running(v010 if victim == "v0.1.0" else NOW, "worker"):
            await wait_until_over(side)
    assert_the_same(await results(side), reference)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Return a receiver of webhooks."""
    async with receiving() as made:
        yield made


def told(receiver: Receiver) -> Counter[str]:
    """Return how often each alert was taken."""
    return Counter(receiver.taken)


@pytest.mark.parametrize(
    ("worker", "relay"), [("now", "v0.1.0"), ("v0.1.0", "now")], ids=["old relay", "new relay"]
)
async def test_a_relay_of_the_other_version(
    side: Side,
    receiver: Receiver,
    v010: Version,
    worker: str,
    relay: str,
) -> None:
    """Whoever upgrades one before the other would not be told meanwhile."""
    versions = {"now": NOW, "v0.1.0": v010}
    side.folder.joinpath("alerts.toml").write_text(destination("here", receiver.url))
    async with side.running(versions[relay], "relay"), side.running(versions[worker], "worker"):
        await publish(side)
        await wait_until(lambda: settled(side.redis, side.prefix), 60, message="everything is read")
        await wait_until_settled(side.redis, side.prefix, "here")
    assert told(receiver) == Counter((await results(side)).alerts)
    assert await undelivered(side.redis, side.prefix) == []


@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "rollback"])
async def test_one_relay_takes_over_from_the_other(
    side: Side,
    receiver: Receiver,
    v010: Version,
    *,
    back: bool,
) -> None:
    """What the one was about to send would be sent by neither."""
    side.folder.joinpath("alerts.toml").write_text(destination("here", receiver.url))
    first, second = (NOW, v010) if back else (v010, NOW)
    async with side.running(first, "relay") as relay:
        await wait_until(lambda: relay.said("relay sends"), message="it holds the lease")
        async with side.running(second, "relay"):
            names = [
                await raise_alert(side.redis, side.prefix, phase, f"resp_{n}")
                for n in range(100)
                for phase in ("opened", "finished")
            ]
            await wait_until(lambda: len(receiver.taken) > 10, message="some are told", interval=0.001)
            await kill(relay)
            assert len(receiver.taken) < len(names)
            await wait_until_settled(side.redis, side.prefix, "here")
    assert told(receiver).keys() == set(names)
    assert await undelivered(side.redis, side.prefix) == []


# What v0.1.0 does not know: new values of alerts belong into this list.

NEW_ALERTS: tuple[dict[str, Any], ...] = (
    {"type": "deltaloom.refusal.finished", "severity": "warning", "status": "cancelled"},
)


async def test_new_alerts_and_an_old_relay(
    side: Side, receiver: Receiver, v010: Version, redis_url: str
) -> None:
    """Alerts that a relay of v0.1.0 cannot read would be gone; the new command sends them afterwards."""
    file = side.folder / "alerts.toml"
    file.write_text(destination("here", receiver.url))
    known = await raise_alert(side.redis, side.prefix, "opened", "known")
    new = [
        await raise_alert(side.redis, side.prefix, "opened", f"new_{n}", **fields)
        for n, fields in enumerate(NEW_ALERTS)
    ]
    async with side.running(v010, "relay"):
        await wait_until_settled(side.redis, side.prefix, "here")
    assert receiver.taken == [known]
    assert [each.reason for each in await undelivered(side.redis, side.prefix)] == ["unreadable"] * len(new)
    env = command_environment(redis_url, side.prefix, DELTALOOM_ALERTS_FILE=str(file), **SECRETS)
    done = await asyncio.to_thread(partial(deltaloom, "alerts", "resend", "--all", env=env))
    assert (done.returncode, done.stdout) == (0, f"{len(new)} delivered\n"), done.stderr
    assert told(receiver) == Counter([known, *new])
    assert await undelivered(side.redis, side.prefix) == []
