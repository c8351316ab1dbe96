"""Test upgrades from v0.1.0 and rollbacks: nothing is lost or doubled.

Both versions understand the input, except in the tests at the end.
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

import demo
from deltaloom import StreamNames
from tests.bench import COMPLETED, delta, done
from tests.client.schemas import validator
from tests.integration.test_contract_rules import (
    CANCELLED,
    FALLBACK,
    LOSS,
    REDACTED,
    REFUSED,
    ended,
    with_checksum,
)
from tests.relays import SECRETS, destination, raise_alert, undelivered, wait_until_settled
from tests.service.cli.command import deltaloom
from tests.service.cli.command import environment as command_environment
from tests.streams import entries
from tests.upgrade.processes import NOW, Side, Version, kill, rejected_by, release
from tests.waiting import wait_until
from tests.webhook_receiver import receiving
from tests.workers import counts, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.webhook_receiver import Receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STREAMS = Path(demo.__file__).parent / "streams"
COPIES = 3
"""The number of copies of each stream, under different response ids."""

SETTINGS: dict[str, object] = {
    "batch_size": 10,  # small, so that a kill happens between two batches
    "block_ms": 200,
    "claim_time": 1,
    "lease_time": 1,
    "idle_timeout": 3,
    "sweep_interval": 0.1,
}

ONCE = ("type", "response_id", "item_id", "kind", "text", "status", "reason")
"""Fields of v0.1.0 that depend on the input alone."""


class Results(NamedTuple):
    """The outputs of a run."""

    texts: dict[str, tuple[Any, ...]]
    """The fields that must be equal, by text id."""
    alerts: set[str]
    """The alerts' ids."""
    dead_letters: Counter[tuple[str, str]]
    """The number of dead letters by (reason, error)."""
    messages: list[tuple[str, str]]
    """The texts and alerts as (model, JSON)."""


@pytest.fixture(scope="module")
def v010() -> Version:
    """Return v0.1.0."""
    return release("v0.1.0")


@pytest.fixture
def side(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> Side:
    """Return the server and prefix for programs of both versions."""
    return Side(redis, redis_url, prefix, tmp_path, **SETTINGS)


_reference: dict[str, Results] = {}
"""The results of v0.1.0 alone on the same input, computed once."""


@pytest.fixture
async def reference(redis: Redis, redis_url: str, prefix: str, tmp_path: Path, v010: Version) -> Results:
    """Return the results of v0.1.0 alone."""
    if not _reference:
        side = Side(redis, redis_url, f"{prefix}-reference", tmp_path, **SETTINGS)
        async with side.running(v010, "worker"):
            await publish(side)
            await wait_until_over(side)
        _reference["v0.1.0"] = await results(side)
    return _reference["v0.1.0"]


async def publish(side: Side) -> None:
    """Publish all streams at once, interleaved in a fixed order, so that none becomes idle."""
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
    """Wait until all entries are read, and all texts are finished or abandoned."""

    async def over() -> bool:
        opened = StreamNames(side.prefix).name("open")
        return await settled(side.redis, side.prefix) and not await side.redis.zcard(opened)

    await wait_until(over, 60, message="all entries are read, all texts finished or abandoned")


async def some_came_out(side: Side) -> None:
    """Wait until the first text has come out."""

    async def came_out() -> bool:
        return await side.redis.xlen(StreamNames(side.prefix).assembled) > 0

    await wait_until(came_out, 30, message="texts come out", interval=0.001)


async def results(side: Side) -> Results:
    """Return the outputs; fail if one came twice or does not match its schema."""
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
        {text["id"]: (*(text[name] for name in ONCE), verdict(text)) for text in found["AssembledText"]},
        {alert["id"] for alert in found["ModerationAlert"]},
        Counter((fields[b"reason"].decode(), fields[b"error"].decode()) for fields in letters),
        written,
    )


def verdict(text: dict[str, Any]) -> str | None:
    """Return a text's integrity, or None for an early end, where v0.1.0 ignored the final copy."""
    return None if text["status"] == "incomplete" else text["integrity"]


def assert_the_same(found: Results, reference: Results) -> None:
    """Compare step by step, for a readable message."""
    assert reference.texts
    assert reference.alerts
    assert reference.dead_letters
    assert found.texts.keys() == reference.texts.keys(), "texts are lost, or made up"
    assert found.texts == reference.texts
    assert found.alerts == reference.alerts
    assert found.dead_letters == reference.dead_letters


async def test_outputs_are_equal_and_readable_by_both_libraries(
    side: Side, reference: Results, v010: Version
) -> None:
    """Write messages that both libraries parse, so that workers and subscribers upgrade independently."""
    async with side.running(NOW, "worker"):
        await publish(side)
        await wait_until_over(side)
    found = await results(side)
    assert_the_same(found, reference)
    assert await rejected_by(v010, found.messages) == []
    assert await rejected_by(NOW, reference.messages) == []


@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "rollback"])
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_one_version_continues_after_the_other(
    side: Side,
    reference: Results,
    v010: Version,
    *,
    back: bool,
    killed: bool,
) -> None:
    """Continue the open texts of the other version."""
    first, second = (NOW, v010) if back else (v010, NOW)
    await publish(side)
    async with side.running(first, "worker") as worker:
        await some_came_out(side)
        if killed:
            await kill(worker)
    assert not await settled(side.redis, side.prefix), "the second version has no work left"
    async with side.running(second, "worker"):
        await wait_until_over(side)
    assert_the_same(await results(side), reference)


@pytest.mark.parametrize("victim", ["v0.1.0", "now"])
async def test_both_versions_share_a_group(
    side: Side,
    reference: Results,
    v010: Version,
    victim: str,
) -> None:
    """Process the same responses with both versions, as in a rolling upgrade."""
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


def deliveries_of(receiver: Receiver) -> Counter[str]:
    """Return how often each alert was accepted."""
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
    """Deliver alerts with a worker and a relay of different versions."""
    versions = {"now": NOW, "v0.1.0": v010}
    side.folder.joinpath("alerts.toml").write_text(destination("here", receiver.url))
    async with side.running(versions[relay], "relay"), side.running(versions[worker], "worker"):
        await publish(side)
        await wait_until(lambda: settled(side.redis, side.prefix), 60, message="all entries are read")
        await wait_until_settled(side.redis, side.prefix, "here")
    assert deliveries_of(receiver) == Counter((await results(side)).alerts)
    assert await undelivered(side.redis, side.prefix) == []


@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "rollback"])
async def test_one_relay_takes_over_from_the_other(
    side: Side,
    receiver: Receiver,
    v010: Version,
    *,
    back: bool,
) -> None:
    """Deliver the alerts that the other version's relay left."""
    side.folder.joinpath("alerts.toml").write_text(destination("here", receiver.url))
    first, second = (NOW, v010) if back else (v010, NOW)
    async with side.running(first, "relay") as relay:
        active = "relay active" if back else "relay sends"  # v0.1.0 has another name for it
        await wait_until(lambda: relay.has_logged(active), message="the relay holds the lease")
        async with side.running(second, "relay"):
            names = [
                await raise_alert(side.redis, side.prefix, phase, f"resp_{n}")
                for n in range(100)
                for phase in ("opened", "finished")
            ]
            await wait_until(
                lambda: len(receiver.taken) > 10, message="some alerts are delivered", interval=0.001
            )
            await kill(relay)
            assert len(receiver.taken) < len(names)
            await wait_until_settled(side.redis, side.prefix, "here")
    assert deliveries_of(receiver).keys() == set(names)
    assert await undelivered(side.redis, side.prefix) == []


async def test_an_old_worker_does_not_drain(side: Side, v010: Version, redis_url: str) -> None:
    """Report a worker that does not know `deltaloom drain`, and reads on."""
    async with side.running(v010, "worker"):
        env = command_environment(redis_url, side.prefix)
        done = await asyncio.to_thread(partial(deltaloom, "drain", "--json", "--timeout", "6", env=env))
        await publish(side)
        await wait_until_over(side)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["drained"], report["pending"], report["reading"]) == (False, 0, 1)


# ----------------------------------------------------------- events that v0.1.0 does not know

NEW_RESPONSES: dict[str, list[dict[str, Any]]] = {
    "cancelled": [delta(1, "I ca", "refusal"), CANCELLED],
    "refused": [REFUSED],
    "guardrail": [ended("incomplete", "guardrail_intervened")],
    "contradicted": [delta(1, "No.", "refusal"), done("No.", "refusal"), done("Yes.", "refusal"), COMPLETED],
    "redacted": [REDACTED, COMPLETED],
    "checksum": [delta(1, "I can't.", "refusal"), with_checksum("I can't."), COMPLETED],
    "loss": [delta(1, "I can", "refusal"), LOSS, done("I can", "refusal"), COMPLETED],
    "fallback": [FALLBACK, COMPLETED],
}
"""Events and values that are new since v0.1.0."""

WITH_A_TEXT = ("cancelled", "contradicted", "checksum", "loss")
"""The responses that give a text with either version."""


@pytest.fixture
def all_handlers(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> Side:
    """Return the server and prefix, with all handlers for programs of this tree."""
    handlers = "refusal,reasoning,lifecycle,stopped,fallback,loss,redacted"
    return Side(redis, redis_url, prefix, tmp_path, **{**SETTINGS, "handlers": handlers})


async def publish_new(side: Side, run: str) -> None:
    """Publish the events that v0.1.0 does not know, with ids of this run."""
    pipeline = side.redis.pipeline(transaction=False)
    for name, events in NEW_RESPONSES.items():
        for event in events:
            fields: Any = {"event": json.dumps(event), "response_id": f"{name}-{run}"}
            pipeline.xadd(StreamNames(side.prefix).deltas, fields)
    await pipeline.execute()


async def statuses(side: Side) -> dict[str, tuple[str, str]]:
    """Return status and integrity of each text by response id; fail if a text came twice."""
    await results(side)
    found = await entries(side.redis, StreamNames(side.prefix).assembled)
    texts = [json.loads(fields[b"__data__"]) for _, fields in found]
    return {text["response_id"]: (text["status"], text["integrity"]) for text in texts}


async def command(side: Side, redis_url: str, *words: str) -> str:
    """Run the command of this tree and return its output."""
    file = str(side.folder / "alerts.toml")
    env = command_environment(redis_url, side.prefix, DELTALOOM_ALERTS_FILE=file, **SECRETS)
    done = await asyncio.to_thread(partial(deltaloom, *words, env=env))
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_new_values_and_an_old_relay_and_library(
    all_handlers: Side, receiver: Receiver, v010: Version, redis_url: str
) -> None:
    """Resend with the new command the alerts that an old relay could not parse."""
    side = all_handlers
    side.folder.joinpath("alerts.toml").write_text(destination("here", receiver.url))
    async with side.running(v010, "relay"), side.running(NOW, "worker"):
        await publish_new(side, "1")
        await wait_until_over(side)
        await wait_until_settled(side.redis, side.prefix, "here")
    assert await statuses(side) == {
        "cancelled-1": ("cancelled", "unverified"),
        "contradicted-1": ("completed", "verified"),
        "redacted-1": ("completed", "redacted"),
        "checksum-1": ("completed", "verified"),
        "loss-1": ("completed", "repaired"),
    }
    left = await undelivered(side.redis, side.prefix)
    assert {each.reason for each in left} == {"unreadable"}
    unread = {json.loads(str(each.alert))["type"]: json.loads(str(each.alert))["status"] for each in left}
    assert unread == {
        "deltaloom.refusal.finished": "cancelled",
        "deltaloom.response.refused": "incomplete",
        "deltaloom.text.contradicted": None,
        "deltaloom.response.fallback": "completed",
    }
    assert await command(side, redis_url, "alerts", "resend", "--all") == f"{len(left)} delivered\n"
    found = await results(side)
    assert deliveries_of(receiver) == Counter(found.alerts)
    assert await undelivered(side.redis, side.prefix) == []
    rejected = await rejected_by(v010, found.messages)
    assert {(message["response_id"], message["type"]) for message in rejected} == {
        ("cancelled-1", "deltaloom.text.assembled"),
        ("cancelled-1", "deltaloom.refusal.finished"),
        ("contradicted-1", "deltaloom.text.contradicted"),
        ("redacted-1", "deltaloom.text.assembled"),
        ("refused-1", "deltaloom.response.refused"),
        ("fallback-1", "deltaloom.response.fallback"),
    }, "a subscriber has to be upgraded first"
    assert await rejected_by(NOW, found.messages) == []


async def test_new_events_and_an_old_worker(
    all_handlers: Side, side: Side, v010: Version, redis_url: str
) -> None:
    """Count or dead-letter new events with an old worker, and replay them after the upgrade."""
    async with side.running(v010, "worker"):
        await publish_new(side, "1")
        await wait_until_over(side)
    before = await statuses(side)
    assert {name: status for name, (status, _) in before.items()} == {
        "cancelled-1": "abandoned",
        "contradicted-1": "completed",
        "checksum-1": "completed",
        "loss-1": "completed",
    }
    ((_, fields),) = await entries(side.redis, StreamNames(side.prefix).dead_letters)
    assert fields[b"error"].startswith(b"response.refusal.done: refusal")
    known = await counts(side.redis, side.prefix)
    for new in (
        *("response.cancelled", "deltaloom.part.redacted", "deltaloom.producer.loss"),
        "deltaloom.response.fallback",
    ):
        assert known[f"type:{new}"] == 1
    async with all_handlers.running(NOW, "worker"):
        await command(side, redis_url, "dead-letters", "replay", "--all")
        await publish_new(side, "2")
        await wait_until_over(side)
    after = await statuses(side)
    assert {name: after[name] for name in before} == before, "a text was revised"
    assert after["cancelled-2"] == ("cancelled", "unverified")
    assert after["checksum-2"] == ("completed", "verified")
    assert await entries(side.redis, StreamNames(side.prefix).dead_letters) == []


async def test_new_events_and_workers_of_both(
    all_handlers: Side, side: Side, receiver: Receiver, v010: Version
) -> None:
    """Lose or double nothing, whichever version reads a new event."""
    side.folder.joinpath("alerts.toml").write_text(destination("here", receiver.url))
    async with (
        side.running(v010, "worker"),
        all_handlers.running(NOW, "worker"),
        side.running(NOW, "relay"),
    ):
        for run in range(10):
            await publish_new(side, str(run))
        await wait_until_over(side)
        await wait_until_settled(side.redis, side.prefix, "here")
    found = await statuses(side)
    wanted = {f"{name}-{run}" for name in WITH_A_TEXT for run in range(10)}
    assert wanted <= found.keys() <= wanted | {f"redacted-{run}" for run in range(10)}
    assert deliveries_of(receiver) == Counter((await results(side)).alerts)
    assert await undelivered(side.redis, side.prefix) == []
