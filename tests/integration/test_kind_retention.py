"""Tests of `kind_retention`: texts of some kinds are removed early from streams, items and alerts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from deltaloom import AssembledText, ModerationAlert, Partitions, StreamNames
from deltaloom.address import Address
from embedded.embedded_server import EmbeddedServer
from service.keys import Keys
from service.ports.storage import SetupError
from service.storage.client.connection import client_of
from service.storage.group import KEPT_FOR_RELAYS_MS
from service.storage.kind_retention import PAGE, KindRetention
from service.storage.records import entry_of_alert
from tests.client.test_messages import ALERT, TEXT
from tests.cluster_servers import running_cluster
from tests.streams import entries
from tests.waiting import wait_until
from tests.workers import running_workers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DAY_MS = 86_400_000
HOUR = 3600
WEEK = 7 * 86400
RELAY = "relay:here"


class Outputs:
    """The outputs of one partition, written as a worker does, but with any age."""

    def __init__(self, redis: Redis, names: StreamNames) -> None:
        self.redis = redis
        self.names = names
        self.now_ms = round(time.time() * 1000)

    def retention(self, seconds: float = HOUR, kind: str = "reasoning") -> KindRetention:
        """Return a `KindRetention` for one kind, with the retention in seconds."""
        return KindRetention(self.redis, Keys(self.names), {kind: seconds}, WEEK)

    async def text(self, name: str, kind: str, age_ms: int, **changed: Any) -> None:
        """Write a text to the stream and to its item."""
        text = TEXT.model_copy(update={"id": f"{kind}_{name}", "kind": kind, "response_id": name, **changed})
        fields = {"__data__": text.model_dump_json(), "kind": kind, "id": text.id}
        if text.response_id is not None:
            fields["response_id"] = text.response_id
        if text.item_id is not None:
            fields["item_id"] = text.item_id
        stored: Any = fields
        await self.redis.xadd(self.names.assembled, stored, f"{self.now_ms - age_ms}-*")
        item = self.names.item(text.response_id or str(text.item_id), text.output_index)
        await self.redis.hset(item, f"{kind}:{text.content_index}", text.model_dump_json())
        await self.redis.expire(item, WEEK)

    async def alert(self, name: str, kind: str | None, age_ms: int, stream: str | None = None) -> str:
        """Write an alert, and return the id of its entry."""
        alert = ModerationAlert.model_validate(ALERT.model_dump() | {"id": name, "kind": kind})
        flat = entry_of_alert(alert, self.names.prefix)
        fields: Any = dict(zip(flat[::2], flat[1::2], strict=True))
        entry_id: Any = await self.redis.xadd(
            stream or self.names.alerts, fields, f"{self.now_ms - age_ms}-*"
        )
        return str(entry_id.decode())

    async def texts(self) -> list[str]:
        """Return the ids of the texts in the stream."""
        return await self.ids(self.names.assembled)

    async def alerts(self) -> list[str]:
        """Return the ids of the alerts in the stream."""
        return await self.ids(self.names.alerts)

    async def ids(self, stream: str) -> list[str]:
        """Return the ids of a stream's messages."""
        return [fields[b"id"].decode() for _, fields in await entries(self.redis, stream)]

    async def item(self, response_id: str, output_index: int = 0) -> list[str]:
        """Return the names of an item's fields, sorted."""
        fields: Any = await self.redis.hkeys(self.names.item(response_id, output_index))
        return sorted(field.decode() for field in fields)


@pytest.fixture(params=[None, 3], ids=["plain", "partition"])
def outputs(redis: Redis, prefix: str, request: pytest.FixtureRequest) -> Outputs:
    """Return the outputs of this test, without and with partitions."""
    return Outputs(redis, StreamNames(prefix, request.param))


async def test_old_texts_of_the_kind_are_gone(outputs: Outputs) -> None:
    """Old texts of the kind are removed; younger texts and other kinds stay."""
    await outputs.text("old", "reasoning", 2 * HOUR * 1000)
    await outputs.text("old", "refusal", 2 * HOUR * 1000)
    await outputs.text("item", "reasoning", 2 * HOUR * 1000, response_id=None, item_id="rs_1")
    await outputs.text("young", "reasoning", HOUR * 500)
    assert await outputs.retention().remove_aged() == 2
    assert await outputs.texts() == ["refusal_old", "reasoning_young"]
    assert await outputs.item("old") == ["refusal:0"]
    assert await outputs.item("rs_1") == []
    assert await outputs.item("young") == ["reasoning:0"]
    assert await outputs.retention().remove_aged() == 0
    assert await outputs.redis.ttl(outputs.names.name("kind-retention")) > 0


async def test_old_alerts_of_the_kind_are_gone(outputs: Outputs) -> None:
    """Old alerts with texts of the kind are removed, also from the undelivered alerts."""
    for stream in (outputs.names.alerts, outputs.names.undelivered):
        await outputs.alert("old", "reasoning", 2 * HOUR * 1000, stream)
        await outputs.alert("other", "refusal", 2 * HOUR * 1000, stream)
        await outputs.alert("spike", None, 2 * HOUR * 1000, stream)
        await outputs.alert("young", "reasoning", HOUR * 500, stream)
    await outputs.retention().remove_aged()
    for stream in (outputs.names.alerts, outputs.names.undelivered):
        assert await outputs.ids(stream) == ["other", "spike", "young"]


async def test_what_a_relay_has_to_deliver_stays(outputs: Outputs) -> None:
    """An alert that a relay has not delivered yet is kept."""
    redis, stream = outputs.redis, outputs.names.alerts
    ids = [await outputs.alert(f"alert_{n}", "reasoning", 3 * HOUR * 1000 - n) for n in range(4)]
    await redis.xgroup_create(stream, RELAY, id="0")
    await redis.xgroup_create(stream, "another", id="0")
    retention = outputs.retention()
    await retention.remove_aged()
    assert len(await outputs.alerts()) == 4, "unread"
    await redis.xreadgroup(RELAY, "relay", {stream: ">"}, count=3)
    await redis.xack(stream, RELAY, ids[0])
    await retention.remove_aged()
    assert await outputs.alerts() == ["alert_1", "alert_2", "alert_3"], "pending and unread"
    await redis.xack(stream, RELAY, ids[1], ids[2])
    await retention.remove_aged()
    assert await outputs.alerts() == ["alert_3"], "unread"
    await redis.xreadgroup(RELAY, "relay", {stream: ">"})
    await redis.xack(stream, RELAY, ids[3])
    await retention.remove_aged()
    assert await outputs.alerts() == []


@pytest.mark.parametrize("pending", [(1, 2), (2, 1)], ids=["first", "second"])
async def test_the_slower_of_two_relays_counts(outputs: Outputs, pending: tuple[int, int]) -> None:
    """The slowest of several relays decides what is kept, also among alerts of one millisecond."""
    stream = outputs.names.alerts
    ids = [await outputs.alert(f"alert_{n}", "reasoning", 3 * HOUR * 1000) for n in range(4)]
    for name, first in zip("ab", pending, strict=True):
        await outputs.redis.xgroup_create(stream, f"relay:{name}", id=ids[first - 1])
        await outputs.redis.xreadgroup(f"relay:{name}", "relay", {stream: ">"})
    await outputs.retention().remove_aged()
    assert await outputs.alerts() == ["alert_1", "alert_2", "alert_3"]


async def test_nothing_waits_for_a_relay_for_ever(outputs: Outputs) -> None:
    """Alerts are removed after a day even if a relay has not read them."""
    await outputs.alert("very old", "reasoning", KEPT_FOR_RELAYS_MS + 60_000)
    await outputs.alert("old", "reasoning", KEPT_FOR_RELAYS_MS - 60_000)
    await outputs.redis.xgroup_create(outputs.names.alerts, RELAY, id="0")
    await outputs.retention().remove_aged()
    assert await outputs.alerts() == ["old"]


async def test_many_pages(outputs: Outputs) -> None:
    """Removal works across pages, and remembers its position between calls."""
    for number in range(2 * PAGE + 10):
        kind = "reasoning" if number % 2 else "refusal"
        await outputs.text(str(number), kind, 2 * HOUR * 1000 - number)
    await outputs.retention(kind="output_text").remove_aged()  # loads the script into the server
    before = await calls(outputs.redis)
    assert await outputs.retention().remove_aged() == PAGE + 5
    after = await calls(outputs.redis)
    assert after["evalsha"] - before["evalsha"] == 3 + 3, "three pages of one stream, one of the others"
    assert len(await outputs.texts()) == PAGE + 5
    before = await calls(outputs.redis)
    assert await outputs.retention().remove_aged() == 0
    after = await calls(outputs.redis)
    assert after["evalsha"] - before["evalsha"] == 4, "one page of each stream"


async def calls(redis: Redis) -> dict[str, int]:
    """Return the number of calls of each command that the server has counted."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}


async def test_another_programs_entries_block_nothing(outputs: Outputs) -> None:
    """Foreign or damaged entries do not stop the removal of others."""
    age = 2 * HOUR * 1000
    odd: Sequence[Any] = (
        {"kind": "reasoning"},
        {"kind": "reasoning", "__data__": "not JSON"},
        {"x": "y"},
        {"kind": "reasoning", "__data__": '{"output_index": "a", "content_index": 0}'},
    )
    for fields in odd:
        await outputs.redis.xadd(outputs.names.assembled, fields, f"{outputs.now_ms - age}-*")
    await outputs.text("old", "reasoning", age)
    await outputs.retention().remove_aged()
    assert await outputs.redis.xlen(outputs.names.assembled) == 1
    assert await outputs.item("old") == []


async def test_nothing_happens_without_the_setting(redis: Redis, prefix: str) -> None:
    """The server gets no extra commands, and nothing is removed, without the setting."""
    outputs = Outputs(redis, StreamNames(prefix))
    await outputs.text("old", "reasoning", DAY_MS)
    before = await calls(redis)
    assert await KindRetention(redis, Keys(outputs.names), {}, WEEK).remove_aged() == 0
    after = await calls(redis)
    assert {name for name in after if after[name] != before.get(name)} <= {"info"}


async def test_an_interrupted_removal_is_completed_by_the_next() -> None:
    """A removal that fails half way is repeated by the next call."""
    with EmbeddedServer(protected=False) as server:
        async with Redis.from_url(server.url) as owner:
            await owner.acl_setuser(
                "half", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-xdel"]
            )
            url = server.url.replace("redis://", "redis://half:any@")
            async with Redis.from_url(url) as half:
                outputs = Outputs(owner, StreamNames())
                await outputs.text("old", "reasoning", 2 * HOUR * 1000)
                with pytest.raises(SetupError, match="NOPERM"):
                    await Outputs(half, outputs.names).retention().remove_aged()
            assert await outputs.item("old") == []
            assert await outputs.texts() == ["reasoning_old"]
            assert await outputs.retention().remove_aged() == 1
            assert await outputs.texts() == []


async def test_in_a_cluster(tmp_path: Path) -> None:
    """Removal works on a cluster with partitions on several masters."""
    async with (
        running_cluster(tmp_path, replicas=False) as cluster,
        client_of(Address.parse(f"redis+cluster://{cluster.addresses}", None)) as redis,
    ):
        partitions = [Outputs(redis, names) for names in Partitions(6).all]
        for outputs in partitions:
            await outputs.text("old", "reasoning", 2 * HOUR * 1000)
            await outputs.text("old", "refusal", 2 * HOUR * 1000)
            await outputs.alert("old", "reasoning", 2 * HOUR * 1000)
        for outputs in partitions:
            assert await outputs.retention().remove_aged() == 2
            assert await outputs.texts() == ["refusal_old"]
            assert await outputs.item("old") == ["refusal:0"]
            assert await outputs.alerts() == []


async def test_to_the_byte_where_a_node_holds_one_entry() -> None:
    """Removed texts leave the server's memory only with one entry per node, as docs/privacy.md states."""
    with EmbeddedServer() as server:
        async with Redis.from_url(server.url) as redis:
            await redis.config_set("rdbcompression", "no")
            left: dict[str, bool] = {}
            for nodes in ("100", "1"):
                await redis.flushall()
                await redis.config_set("stream-node-max-entries", nodes)
                outputs = Outputs(redis, StreamNames())
                for name in ("a", "old", "b"):
                    kind = "reasoning" if name == "old" else "refusal"
                    await outputs.text(name, kind, 2 * HOUR * 1000, text=f"the words of {name}")
                await outputs.retention().remove_aged()
                dumped: Any = await redis.dump(outputs.names.assembled)
                assert b"the words of a" in dumped
                left[nodes] = b"the words of old" in dumped
            assert left == {"100": True, "1": False}


@pytest.mark.timeout(120)
async def test_a_worker_that_is_killed_meanwhile(redis: Redis, redis_url: str, prefix: str) -> None:
    """A worker that is killed during removal neither loses other texts nor leaves old ones."""
    outputs = Outputs(redis, StreamNames(prefix))
    text = AssembledText.model_validate(TEXT.model_dump() | {"kind": "reasoning"}).model_dump_json()
    pipeline = redis.pipeline(transaction=False)
    for number in range(20_000):
        kind = "refusal" if number % 10 == 0 else "reasoning"
        fields: Any = {"__data__": text, "kind": kind, "response_id": str(number), "id": str(number)}
        pipeline.xadd(outputs.names.assembled, fields, f"{outputs.now_ms - 2 * HOUR * 1000 + number}-0")
    await pipeline.execute()
    settings: dict[str, Any] = {"kind_retention": "reasoning=3600", "trim_interval": 0.5}

    async def is_left(count: int) -> bool:
        return await redis.xlen(outputs.names.assembled) <= count

    async with running_workers(redis_url, prefix, **settings) as (worker,):
        await wait_until(lambda: is_left(19_000), message="some are removed", interval=0.001)
        await worker.kill()
    assert await redis.xlen(outputs.names.assembled) > 2_000
    async with running_workers(redis_url, prefix, **settings):
        await wait_until(lambda: is_left(2_000), message="all are removed")
    assert await outputs.texts() == [str(number) for number in range(0, 20_000, 10)]


async def test_a_subscribers_lag_is_unknown_and_a_worker_goes_on(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Removal makes a subscriber group's lag unknown (`None`), which the worker tolerates."""
    outputs = Outputs(redis, StreamNames(prefix))
    await redis.xgroup_create(outputs.names.assembled, "archive", id="0", mkstream=True)
    await outputs.text("1", "refusal", 3 * HOUR * 1000)
    await outputs.text("2", "reasoning", 2 * HOUR * 1000)
    await outputs.text("3", "refusal", HOUR * 1000)
    await redis.xreadgroup("archive", "a", {outputs.names.assembled: ">"}, count=1)
    settings: dict[str, Any] = {"kind_retention": "reasoning=3600", "trim_interval": 0.1}
    async with running_workers(redis_url, prefix, **settings) as (worker,):

        async def removed() -> bool:
            return await redis.xlen(outputs.names.assembled) == 2

        await wait_until(removed, message="the text is removed")
        (group,) = await redis.xinfo_groups(outputs.names.assembled)
        assert group["lag"] is None
        await redis.xadd(outputs.names.deltas, {"type": "unknown", "item_id": "x"})
        await wait_until(lambda: redis.hlen(outputs.names.name("counts")), message="it reads on")
        assert [line for line in worker.lines() if line["level"] in {"warning", "error"}] == [
            line for line in worker.lines() if line["event"] == "server at risk"
        ]
