"""Workers that start while a master of their cluster is away: what is there is served, the rest waits."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import RedisClusterException, RedisError

from deltaloom import AssembledText, Partitions
from service.address import Address
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
"""Partitions: enough that each of the three masters has some."""

SETTINGS: dict[str, object] = {"partitions": COUNT, "sweep_interval": 0.2, "block_ms": 200}

AWAY = "redis is away, waiting for it"
BACK = "redis is back"

pytestmark = pytest.mark.timeout(240)


class Divided:
    """A cluster, a master of it, and which partitions are that one's."""

    def __init__(self, cluster: Cluster, client: Redis, master: Node, its: list[StreamNames]) -> None:
        self.cluster = cluster
        self.client = client
        self.master = master
        self.its = its
        self.others = [names for names in Partitions(COUNT).all if names not in its]
        self.url = f"redis+cluster://{cluster.addresses}"

    async def publish(self, partitions: list[StreamNames], word: str) -> None:
        """A refusal in each of these partitions; the word is its text."""
        part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        event = json.dumps({"type": "response.refusal.done", "refusal": word, "sequence_number": 1, **part})
        for names in partitions:
            await self.client.xadd(names.deltas, {"event": event, "response_id": f"{word} {names.deltas}"})

    async def have_come_out(self, partitions: list[StreamNames], *words: str) -> bool:
        """Whether these are the texts of each of these partitions, in their order."""
        try:
            found = [await entries(self.client, names.assembled) for names in partitions]
        except (RedisError, RedisClusterException):  # just back
            return False
        texts = [
            [AssembledText.model_validate_json(fields[b"__data__"]).text for _, fields in each]
            for each in found
        ]
        return texts == [list(words)] * len(partitions)

    async def until_out(self, partitions: list[StreamNames], *words: str) -> None:
        """Wait for them."""
        await wait_until(
            partial(self.have_come_out, partitions, *words), 60, message=f"{words} come out", interval=0.05
        )


@asynccontextmanager
async def divided(folder: Path) -> AsyncIterator[Divided]:
    """A cluster without replicas that serves the slots it has, in whatever state the others are."""
    async with running_cluster(folder, cluster_require_full_coverage="no") as cluster:
        client = client_of(Address.parse(f"redis+cluster://{cluster.addresses}"))
        try:
            owners = {
                names: await cluster.owner(await cluster.slot_of(names.deltas))
                for names in Partitions(COUNT).all
            }
            master = owners[Partitions(COUNT).all[0]]
            its = [names for names, owner in owners.items() if owner is master]
            assert 0 < len(its) < COUNT
            yield Divided(cluster, client, master, its)
        finally:
            await client.aclose()


def waiting(worker: WorkerProcess) -> set[str]:
    """The streams whose server is away, as its log has it now.

    That has a line more when the reason changes (a node that still names the former owner, then none that
    does), and for a partition whose connection was closed while the map was read anew: it is soon back.
    """
    latest = {line["stream"]: line["event"] for line in worker.lines() if line["event"] in {AWAY, BACK}}
    return {stream for stream, event in latest.items() if event == AWAY}


async def until_waiting(worker: WorkerProcess, partitions: list[StreamNames]) -> None:
    """Wait until it waits for the servers of these partitions, and no others."""
    streams = {names.deltas for names in partitions}
    await wait_until(lambda: waiting(worker) == streams, 30, message=f"only {sorted(streams)} wait")


def assert_nothing_failed(worker: WorkerProcess) -> None:
    """A worker in trouble waits. It has no error to log, and no traceback."""
    for line in worker.lines():
        assert line["level"] != "error", line.get("exception", line)


async def test_what_is_there_is_served_at_once(tmp_path: Path) -> None:
    """With one of three masters away a worker that is restarted would serve nothing at all."""
    async with divided(tmp_path) as half:
        everywhere = [*half.its, *half.others]
        await half.publish(everywhere, "first")
        await half.master.kill()
        async with running_workers(half.url, "deltaloom", 1, **SETTINGS) as (worker,):
            await half.until_out(half.others, "first")
            await half.publish(half.others, "second")
            await half.until_out(half.others, "first", "second")
            await until_waiting(worker, half.its)
            (risk,) = await wait_until(
                partial(risks, worker), 30, message="the master that is away is told of"
            )
            assert half.master.address in risk
            await half.cluster.start(half.master)
            await half.until_out(half.its, "first")
            await half.publish(half.its, "second")
            await half.until_out(everywhere, "first", "second")
            assert all([await half.client.exists(names.name("format")) for names in everywhere])
            await until_waiting(worker, [])
            assert_nothing_failed(worker)


def risks(worker: WorkerProcess) -> list[str]:
    """What it has said of the server that is no good."""
    lines = worker.lines()
    return [line["says"] for line in lines if line["event"] == "server at risk" and line["what"] == "server"]


async def test_slots_that_nobody_has(tmp_path: Path) -> None:
    """A worker that starts before a cluster is put together would wait for ever, or fail."""
    async with divided(tmp_path) as half:
        await half.publish(half.others, "first")
        slots = [await half.cluster.slot_of(names.deltas) for names in half.its]
        for node in half.cluster.nodes:
            await node.ask("CLUSTER", "DELSLOTS", *slots)
        async with running_workers(half.url, "deltaloom", 1, **SETTINGS) as (worker,):
            await half.until_out(half.others, "first")
            await until_waiting(worker, half.its)
            await half.master.ask("CLUSTER", "ADDSLOTS", *slots)
            await half.cluster.wait_until_ok()
            await half.publish(half.its, "first")
            await half.until_out(half.its, "first")
            assert_nothing_failed(worker)


async def test_it_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    """A worker that waits would have to be killed, and what it had read been waited for."""
    async with divided(tmp_path) as half:
        await half.publish(half.others, "first")
        await half.master.kill()
        async with running_workers(half.url, "deltaloom", 1, **SETTINGS) as (worker,):
            await half.until_out(half.others, "first")
            await until_waiting(worker, half.its)
            assert await worker.stop() == 0
            assert worker.said("worker stopped")
            assert_nothing_failed(worker)
        for names in half.others:
            assert await half.client.xinfo_consumers(names.deltas, "deltaloom") == []


async def test_nothing_is_there(tmp_path: Path) -> None:
    """A worker that waits for all its partitions could not be stopped, or would say that it has started."""
    async with divided(tmp_path) as half:
        await half.master.kill()
        numbers = ",".join(str(names.partition) for names in half.its)
        settings = {**SETTINGS, "serve_partitions": numbers}
        async with beginning_workers(half.url, "deltaloom", 1, **settings) as (worker,):
            await until_waiting(worker, half.its)
            assert await worker.stop() == 0
            assert not worker.said("worker started")
            assert_nothing_failed(worker)


async def test_the_check_tells_of_it(tmp_path: Path) -> None:
    """A health check would say that nothing is served, or that everything is."""
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
            partitions = "1 partition" if len(half.its) == 1 else f"{len(half.its)} partitions"
            assert found["workers"]["says"].endswith(f", {partitions} whose server does not answer")
            await half.cluster.alive[0].kill()  # one of three is no majority: it serves nothing
            await wait_until(lambda: deltaloom("check", env=env).returncode, 30, message="nothing is served")
