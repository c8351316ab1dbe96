"""Workers start while a master of their cluster is down: they serve the other partitions meanwhile."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import RedisClusterException, RedisError

from deltaloom import AssembledText, Partitions
from deltaloom.address import Address
from service.storage.client.connection import client_of
from tests.cluster_servers import running_cluster
from tests.service.cli.command import deltaloom, environment
from tests.streams import entries
from tests.waiting import wait_until
from tests.workers import beginning_workers, running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

    from deltaloom import StreamNames
    from tests.cluster_servers import Cluster
    from tests.nodes import Node
    from tests.workers import WorkerProcess

COUNT = 6
"""Number of partitions: enough that each of the three masters has some."""

SETTINGS: dict[str, object] = {"partitions": COUNT, "sweep_interval": 0.2, "block_ms": 200}

AWAY = "redis unavailable, retrying"
BACK = "redis available again"

pytestmark = pytest.mark.timeout(240)


class Divided:
    """A cluster, one of its masters, and the partitions with (`affected`) and without it (`unaffected`)."""

    def __init__(self, cluster: Cluster, client: Redis, master: Node, affected: list[StreamNames]) -> None:
        self.cluster = cluster
        self.client = client
        self.master = master
        self.affected = affected
        self.unaffected = [names for names in Partitions(COUNT).all if names not in affected]
        self.url = f"redis+cluster://{cluster.addresses}"

    async def publish(self, partitions: list[StreamNames], word: str) -> None:
        """Publish a refusal with this text to each of these partitions."""
        part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        event = json.dumps({"type": "response.refusal.done", "refusal": word, "sequence_number": 1, **part})
        for names in partitions:
            await self.client.xadd(names.deltas, {"event": event, "response_id": f"{word} {names.deltas}"})

    async def have_come_out(self, partitions: list[StreamNames], *words: str) -> bool:
        """Return whether these texts, in this order, have come out of each of these partitions."""
        try:
            found = [await entries(self.client, names.assembled) for names in partitions]
        except (RedisError, RedisClusterException):  # the master has just started
            return False
        texts = [
            [AssembledText.model_validate_json(fields[b"__data__"]).text for _, fields in each]
            for each in found
        ]
        return texts == [list(words)] * len(partitions)

    async def until_out(self, partitions: list[StreamNames], *words: str) -> None:
        """Wait until these texts have come out of each of these partitions."""
        await wait_until(
            partial(self.have_come_out, partitions, *words), 60, message=f"{words} come out", interval=0.05
        )


@asynccontextmanager
async def divided(folder: Path) -> AsyncIterator[Divided]:
    """Run a cluster without replicas that serves the remaining slots when a master is down."""
    async with running_cluster(folder, cluster_require_full_coverage="no") as cluster:
        client = client_of(Address.parse(f"redis+cluster://{cluster.addresses}"))
        try:
            owners = {
                names: await cluster.owner(await cluster.slot_of(names.deltas))
                for names in Partitions(COUNT).all
            }
            master = owners[Partitions(COUNT).all[0]]
            affected = [names for names, owner in owners.items() if owner is master]
            assert 0 < len(affected) < COUNT
            yield Divided(cluster, client, master, affected)
        finally:
            await client.aclose()


def waiting(worker: WorkerProcess) -> set[str]:
    """Return the streams that the worker's log reports as unavailable at the moment.

    The worker logs another line when the reason changes: first a node names the former owner, then none does.
    It also logs one for a partition with a connection that was closed while the slot map was read again; that
    partition is soon back.
    """
    latest = {line["stream"]: line["event"] for line in worker.lines() if line["event"] in {AWAY, BACK}}
    return {stream for stream, event in latest.items() if event == AWAY}


async def until_waiting(worker: WorkerProcess, partitions: list[StreamNames]) -> None:
    """Wait until the worker reports exactly these partitions as unavailable."""
    streams = {names.deltas for names in partitions}
    await wait_until(lambda: waiting(worker) == streams, 30, message=f"only {sorted(streams)} wait")


def assert_nothing_failed(worker: WorkerProcess) -> None:
    """Assert that the worker has logged no error: while a server is away, a worker waits."""
    for line in worker.lines():
        assert line["level"] != "error", line.get("exception", line)


async def test_what_is_there_is_served_at_once(tmp_path: Path) -> None:
    """A worker that starts while one of three masters is down serves the other partitions at once."""
    async with divided(tmp_path) as half:
        everywhere = [*half.affected, *half.unaffected]
        await half.publish(everywhere, "first")
        await half.master.kill()
        async with running_workers(half.url, "deltaloom", 1, **SETTINGS) as (worker,):
            await half.until_out(half.unaffected, "first")
            await half.publish(half.unaffected, "second")
            await half.until_out(half.unaffected, "first", "second")
            await until_waiting(worker, half.affected)
            (risk,) = await wait_until(
                partial(risks, worker), 30, message="the unreachable master is reported"
            )
            assert half.master.address in risk
            await half.cluster.start(half.master)
            await half.until_out(half.affected, "first")
            await half.publish(half.affected, "second")
            await half.until_out(everywhere, "first", "second")
            assert all([await half.client.exists(names.name("format")) for names in everywhere])
            await until_waiting(worker, [])
            assert_nothing_failed(worker)


def risks(worker: WorkerProcess) -> list[str]:
    """Return the warnings about the server that the worker has logged."""
    lines = worker.lines()
    return [line["says"] for line in lines if line["event"] == "server at risk" and line["what"] == "server"]


async def test_slots_that_nobody_has(tmp_path: Path) -> None:
    """A worker that starts before all slots are assigned serves the others, and waits for the rest."""
    async with divided(tmp_path) as half:
        await half.publish(half.unaffected, "first")
        slots = [await half.cluster.slot_of(names.deltas) for names in half.affected]
        for node in half.cluster.nodes:
            await node.ask("CLUSTER", "DELSLOTS", *slots)
        async with running_workers(half.url, "deltaloom", 1, **SETTINGS) as (worker,):
            await half.until_out(half.unaffected, "first")
            await until_waiting(worker, half.affected)
            await half.master.ask("CLUSTER", "ADDSLOTS", *slots)
            await half.cluster.wait_until_ok()
            await half.publish(half.affected, "first")
            await half.until_out(half.affected, "first")
            assert_nothing_failed(worker)


async def test_it_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    """A worker with a dead master stops on SIGTERM, and leaves no consumer on the other partitions."""
    async with divided(tmp_path) as half:
        await half.publish(half.unaffected, "first")
        await half.master.kill()
        async with running_workers(half.url, "deltaloom", 1, **SETTINGS) as (worker,):
            await half.until_out(half.unaffected, "first")
            await until_waiting(worker, half.affected)
            assert await worker.stop() == 0
            assert worker.has_logged("worker stopped")
            assert_nothing_failed(worker)
        for names in half.unaffected:
            assert await half.client.xinfo_consumers(names.deltas, "deltaloom") == []


async def test_nothing_is_there(tmp_path: Path) -> None:
    """A worker without any reachable partition can be stopped, and does not log that it has started."""
    async with divided(tmp_path) as half:
        await half.master.kill()
        numbers = ",".join(str(names.partition) for names in half.affected)
        settings = {**SETTINGS, "serve_partitions": numbers}
        async with beginning_workers(half.url, "deltaloom", 1, **settings) as (worker,):
            await until_waiting(worker, half.affected)
            assert await worker.stop() == 0
            assert not worker.has_logged("worker started")
            assert_nothing_failed(worker)


async def test_the_check_reports_it(tmp_path: Path) -> None:
    """`deltaloom check` warns of the partitions that are not served, and fails if none is."""
    async with divided(tmp_path) as half:
        env = environment(half.url, DELTALOOM_PARTITIONS=str(COUNT))
        async with running_workers(half.url, "deltaloom", 1, **SETTINGS):
            await half.master.kill()
            done = deltaloom("check", "--json", env=env)
            found: dict[str, Any] = {each["what"]: each for each in json.loads(done.stdout)["checks"]}
            assert (done.returncode, found["server"]["state"], found["workers"]["state"]) == (
                0,
                "warn",
                "warn",
            )
            assert half.master.address in found["server"]["says"]
            assert found["server"]["says"].endswith("(1 of 3 masters)")
            partitions = "1 partition" if len(half.affected) == 1 else f"{len(half.affected)} partitions"
            assert found["workers"]["says"].endswith(f", {partitions} whose server does not answer")
            await half.cluster.alive[0].kill()  # the last of three has no majority, and serves nothing
            await wait_until(lambda: deltaloom("check", env=env).returncode, 30, message="nothing is served")
