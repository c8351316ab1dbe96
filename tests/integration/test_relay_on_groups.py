"""Relays on a Redis Cluster and on a sentinel group: the sending relay is killed, then the master."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from deltaloom import Partitions
from deltaloom.address import Address
from service.storage.client.connection import client_of
from tests.cluster_servers import running_cluster
from tests.generated import SETTINGS
from tests.relays import destination, relay_environment, relay_process
from tests.sentinel_servers import SERVICE, running_sentinels
from tests.streams import add
from tests.waiting import wait_until
from tests.webhook_receiver import receiving
from tests.workers import running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.cluster_servers import Cluster
    from tests.nodes import Node
    from tests.sentinel_servers import SentinelGroup
    from tests.webhook_receiver import Receiver
    from tests.workers import WorkerProcess

COUNT = 6
"""Number of partitions: enough that each of a cluster's three masters has some."""

AT_ONCE = 20
"""Number of refusals that are published together."""

GROUP = b"relay:here"
PHASES = ["deltaloom.refusal.opened", "deltaloom.refusal.finished"]

pytestmark = pytest.mark.timeout(240)


@dataclass
class Stage:
    """A server group with a worker and two relays, and a receiver."""

    client: Redis
    partitions: Partitions
    receiver: Receiver
    relays: list[WorkerProcess]
    refused: int = 0

    async def refuse(self) -> None:
        """Publish some refusals, each to its partition; publish an event again if its reply is lost."""
        for number in range(self.refused, self.refused + AT_ONCE):
            for event in _refusal(f"msg_{number}"):
                await self._publish({"event": json.dumps(event), "response_id": f"resp_{number}"})
        self.refused += AT_ONCE

    async def _publish(self, fields: dict[str, str]) -> None:
        stream = self.partitions.of(fields["response_id"]).deltas

        async def stored() -> bool:
            try:
                return bool(await add(self.client, stream, fields))
            except (RedisError, RedisClusterException, OSError):
                return False

        await wait_until(stored, 60, message="an event is stored", interval=0.05)

    async def settled(self) -> None:
        """Wait until all alerts of the refusals have arrived and are acknowledged."""
        expected = self.refused * len(PHASES)
        await wait_until(
            lambda: len(set(self.receiver.taken)) == expected,
            90,
            message=f"{expected} alerts arrive",
        )
        await wait_until(self._nothing_is_pending, 60, message="no alert is pending any more")

    async def _nothing_is_pending(self) -> bool:
        try:
            groups = [await self.client.xinfo_groups(names.alerts) for names in self.partitions.all]
        except (RedisError, RedisClusterException, OSError):
            return False
        of_relay: list[Any] = [each for some in groups for each in some if each["name"] == GROUP]
        return len(of_relay) == len(groups) and not any(each["pending"] or each["lag"] for each in of_relay)

    def sends(self) -> WorkerProcess:
        """Return the relay that acquired the lease."""
        (relay,) = [relay for relay in self.relays if relay.has_logged("relay active")]
        return relay

    def judge(self) -> None:
        """Assert that each alert arrived once, and `opened` before `finished`."""
        requests = self.receiver.requests
        taken = [request.body for request in requests if request.status == web.HTTPOk.status_code]
        for number in range(self.refused):
            assert [body["type"] for body in taken if body["response_id"] == f"resp_{number}"] == PHASES
        assert len(taken) == self.refused * len(PHASES)

    def assert_nothing_failed(self) -> None:
        """Assert that no relay has logged an error: while a server is away, a relay waits."""
        for relay in self.relays:
            for line in relay.lines():
                assert line["level"] != "error", line.get("exception", line)


def _refusal(item: str) -> Iterable[dict[str, object]]:
    place = {"item_id": item, "output_index": 0, "content_index": 0}
    for number, delta in enumerate(("I'm sorry, ", "no.")):
        yield {"type": "response.refusal.delta", "delta": delta, "sequence_number": number, **place}
    yield {"type": "response.refusal.done", "refusal": "I'm sorry, no.", "sequence_number": 2, **place}


@asynccontextmanager
async def staged(url: str, partitions: int, folder: Path) -> AsyncIterator[Stage]:
    """Start a receiver, a worker and two relays on a running server group."""
    settings: dict[str, object] = {"partitions": partitions} if partitions else {}
    environment = relay_environment(url, "deltaloom", **settings, block_ms=200, lease_time=5)
    client = client_of(Address.parse(url), retry=Retry(NoBackoff(), 0))
    file = folder / "alerts.toml"
    async with receiving() as receiver, client, running_workers(url, "deltaloom", 1, **SETTINGS, **settings):
        file.write_text(destination("here", receiver.url))
        async with relay_process(file, environment) as first:
            await wait_until(lambda: first.has_logged("relay active"))
            async with relay_process(file, environment) as second:
                await wait_until(lambda: second.has_logged("relay standby"))
                yield Stage(client, Partitions(partitions), receiver, [first, second])


async def relays_die_and_servers_too(
    stage: Stage, group: Cluster | SentinelGroup, master: Callable[[], Awaitable[Node]]
) -> None:
    """Assert deliveries in normal operation, after the sending relay is killed, and after the master is."""
    await stage.refuse()
    await stage.settled()
    stage.judge()
    stage.receiver.answer = lambda _id, _count: web.Response(status=503)
    killed = stage.sends()
    await stage.refuse()
    await wait_until(lambda: stage.receiver.requests[-1].status != web.HTTPOk.status_code)
    await killed.kill()
    stage.receiver.answer = lambda _id, _count: web.Response()
    await stage.settled()
    stage.judge()
    stage.relays.remove(killed)
    stage.sends()
    # A failover loses entries that are not replicated yet, so the master is killed after replication.
    await group.wait_until_replicated()
    dead = await master()
    await dead.kill()
    replaced = asyncio.create_task(group.wait_until_replaced(dead))
    await stage.refuse()
    await replaced
    await stage.settled()
    stage.judge()
    stage.assert_nothing_failed()


@pytest.mark.slow
async def test_cluster(tmp_path: Path) -> None:
    """Keys for all partitions, and calls about several of them, work on a cluster."""
    async with (
        running_cluster(tmp_path, replicas=1) as cluster,
        staged(f"redis+cluster://{cluster.addresses}", COUNT, tmp_path) as stage,
    ):
        slots = [await cluster.slot_of(names.alerts) for names in stage.partitions.all]
        assert len({await cluster.owner(slot) for slot in slots}) == 3
        await relays_die_and_servers_too(stage, cluster, partial(cluster.owner, slots[0]))


@pytest.mark.slow
async def test_sentinels(tmp_path: Path) -> None:
    """Relays follow a failover to the new master."""
    async with (
        running_sentinels(tmp_path) as group,
        staged(f"redis+sentinel://{group.addresses}/{SERVICE}/0", 0, tmp_path) as stage,
    ):
        await relays_die_and_servers_too(stage, group, group.master)
