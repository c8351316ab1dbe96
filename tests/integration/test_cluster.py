"""Tests of workers on a real Redis Cluster: the whole flow, a slot that moves, a master that dies."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from structlog.testing import capture_logs

from deltaloom import GROUP, Partitions
from deltaloom.address import Address
from service.keys import Keys
from service.retrying import RetryUntilAvailable
from service.storage.client import direct
from service.storage.client.connection import client_of, reading_client_of
from service.storage.client.read_plan import READ_ENTRIES
from service.storage.client.reading_client import Input
from service.storage.group import ConsumerGroup
from service.storage.scripts import Script
from tests.cluster_servers import PATIENT_MS, running_cluster
from tests.generated import SETTINGS, Generated
from tests.mid_stream import CarefulProducers, kill_in_mid_stream
from tests.service.cli.command import deltaloom, environment
from tests.waiting import wait_until
from tests.workers import running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

    from redis.asyncio import Redis

    from deltaloom import StreamNames
    from service.storage.client.reading_client import ReadingClient
    from tests.cluster_servers import Cluster
    from tests.nodes import Node
    from tests.workers import WorkerProcess

    Run = Callable[[Coroutine[Any, Any, None]], None]

COUNT = 6
"""Number of partitions: enough that each of the three masters has some."""

pytestmark = pytest.mark.timeout(240)


def url_of(cluster: Cluster) -> str:
    """Return the cluster's URL as an operator writes it."""
    return f"redis+cluster://{cluster.addresses}"


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[Redis]:
    """Open a client that retries no command."""
    client = client_of(Address.parse(url_of(cluster)), retry=Retry(NoBackoff(), 0))
    try:
        yield client
    finally:
        await client.aclose()


async def owner_of(cluster: Cluster, names: StreamNames) -> Node:
    """Return the master that holds a partition."""
    return await cluster.owner(await cluster.slot_of(names.deltas))


def assert_nothing_failed(workers: list[WorkerProcess]) -> None:
    """Assert that no worker has logged an error: while a server is away, a worker waits."""
    for worker in workers:
        for line in worker.lines():
            assert line["level"] != "error", line.get("exception", line)


@pytest.mark.slow
async def test_the_whole_flow(tmp_path: Path) -> None:
    """Workers with different partitions process all of them on a cluster with three masters."""
    generated = Generated(Partitions(COUNT), "cluster", 40)
    async with running_cluster(tmp_path) as cluster, connected(cluster) as client:
        owners = {await owner_of(cluster, names) for names in Partitions(COUNT).all}
        assert len(owners) == 3
        url, settings = url_of(cluster), {**SETTINGS, "partitions": COUNT}
        async with (
            running_workers(url, "deltaloom", 1, **settings, serve_partitions="0-2") as first,
            running_workers(url, "deltaloom", 1, **settings, serve_partitions="2-5") as second,
        ):
            await generated.keep_all(client)
            await generated.publish(client)
            await generated.judge(client)
            assert_nothing_failed([*first, *second])
        # `COMMAND GETKEYS` would be a round trip to one of the nodes before each read.
        for node in cluster.nodes:
            assert "cmdstat_command|getkeys" not in await node.ask("INFO", "commandstats")


@pytest.mark.slow
async def test_slots_move_in_mid_stream(tmp_path: Path) -> None:
    """Slots move to another master while events arrive, without loss and without an error."""
    generated = Generated(Partitions(COUNT), "migration", 60)
    async with (
        running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster,
        connected(cluster) as client,
        running_workers(url_of(cluster), "deltaloom", 2, **SETTINGS, partitions=COUNT) as workers,
    ):
        await generated.keep_all(client)
        await generated.publish(client, 0.2)
        for names in Partitions(COUNT).all[:3]:
            publishing = asyncio.create_task(generated.publish(client, 0.4))
            await move(cluster, await cluster.slot_of(names.deltas))
            await publishing
        await generated.publish(client)
        await generated.judge(client)
        assert_nothing_failed(workers)


async def test_a_backlog_is_read_while_its_slot_moves(tmp_path: Path) -> None:
    """A reader that asks for many replies at once follows its slot to another master."""
    names = Partitions(COUNT).all[0]
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster, connected(cluster) as client:
        published = await backlog(client, names, 7 * READ_ENTRIES // 2)
        batches: list[list[bytes]] = []
        async with reading(cluster, client, names) as reader:
            while sum(map(len, batches)) < len(published):
                batches.append(await reader.read())
                if len(batches) == 2:
                    await move(cluster, await cluster.slot_of(names.deltas))
        assert [len(batch) for batch in batches[:2]] == [READ_ENTRIES, 2 * READ_ENTRIES]
        assert [entry_id for batch in batches for entry_id in batch] == published


async def test_a_reply_that_is_lost_leaves_no_gap_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py would repeat the whole command after a lost reply, and so leave a gap inside of a batch."""
    names = Partitions(COUNT).all[0]
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster, connected(cluster) as client:
        ids = await backlog(client, names, 10 * READ_ENTRIES)
        async with reading(cluster, client, names) as reader:
            sizes = [len(await reader.read()), len(await reader.read())]
            assert sizes == [READ_ENTRIES, 2 * READ_ENTRIES]
            replies, requested = itertools.count(1), 4
            answer = direct.answer

            def only_first_comes(command: Any, reply: Any) -> None:
                is_read = isinstance(reply, dict) and names.deltas.encode() in reply
                cut = is_read and 1 < next(replies) <= requested
                answer(command, exceptions.ConnectionError("cut") if cut else reply)

            monkeypatch.setattr(direct, "answer", only_first_comes)
            assert await reader.read() == ids[sum(sizes) : sum(sizes) + READ_ENTRIES]
            given_out = (await client.xpending(names.deltas, GROUP))["pending"]
            assert given_out > sum(sizes) + READ_ENTRIES, "there was a second reply"
            assert (await reader.read())[0] == ids[given_out]


async def test_a_reader_with_a_backlog_waits_for_its_cluster(tmp_path: Path) -> None:
    """A reader waits silently for its cluster.

    Otherwise it would log an error every five seconds, and lose its batch.
    """
    names = Partitions(COUNT).all[0]
    async with running_cluster(tmp_path) as cluster, connected(cluster) as client:
        await backlog(client, names, 4 * READ_ENTRIES)
        async with reading(cluster, client, names) as reader:
            for _ in range(2):
                assert await reader.read()
            for node in cluster.nodes:
                await node.kill()
            await reader.client.close_connections()  # as the reader of another partition does when it notices
            with capture_logs() as lines:
                goes_on = asyncio.create_task(reader.read())
                await wait_until(lambda: lines, message="it waits")
            for node in cluster.nodes:
                await node.start()
            await cluster.wait_until_ok()
            assert await goes_on
        assert [line["event"] for line in lines] == ["redis unavailable, retrying"] * len(lines)


async def test_a_closed_idle_connection_is_not_reported(tmp_path: Path) -> None:
    """A closed idle connection is not reported as Redis being down, since proxies drop idle connections."""
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster:
        # With few sweeps, only waiting connections are closed. A command that is cut off is a different case.
        settings = {"partitions": COUNT, "block_ms": 2000, "sweep_interval": 20}
        async with running_workers(url_of(cluster), "deltaloom", 1, **settings) as (worker,):
            for _ in range(3):
                await wait_until(partial(all_are_read, cluster), message="all partitions are read")
                await wait_until(partial(nothing_is_asked, cluster), message="all other connections wait")
                for node in cluster.nodes:
                    await node.ask("CLIENT", "KILL", "TYPE", "normal")
            await wait_until(partial(all_are_read, cluster), message="all partitions are read on")
            away = [line for line in worker.lines() if line["event"] == "redis unavailable, retrying"]
            assert not away, json.dumps(away)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
async def test_commands_over_closed_connections_are_sent_again(tmp_path: Path, run: Run) -> None:
    """Send many at once, single commands and pipelines, on both event loops."""

    async def ask(url: str, close: Callable[[], Awaitable[None]]) -> None:
        client = client_of(Address.parse(url))
        try:
            for expected in range(1, 9):
                counts = [client.incr(f"{{{number % COUNT}}}{number}") for number in range(20 * COUNT)]
                assert set(await asyncio.gather(*counts)) == {expected}
                await close()
            pipelines = [client.pipeline(transaction=False) for _ in range(COUNT)]
            for number, pipeline in enumerate(pipelines):
                pipeline.incrby(f"{{{number}}}{number}", 100)
            assert await asyncio.gather(*[each.execute() for each in pipelines]) == [[108]] * COUNT
        finally:
            await client.aclose()

    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster:
        loop = asyncio.get_running_loop()

        async def kill() -> None:
            for node in cluster.nodes:
                await node.ask("CLIENT", "KILL", "TYPE", "normal")

        async def close() -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(kill(), loop))

        await asyncio.to_thread(run, ask(url_of(cluster), close))


async def test_a_worker_leaves_a_cluster_that_hangs(tmp_path: Path) -> None:
    """A worker without entries in hand stops on SIGTERM although its cluster does not answer."""
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster:
        async with running_workers(url_of(cluster), "deltaloom", 1, partitions=COUNT) as (worker,):
            await wait_until(partial(all_are_read, cluster), message="all partitions are read")
            for node in cluster.nodes:
                node.hang()
            assert await worker.stop() == 0
        for node in cluster.nodes:
            node.go_on()


@pytest.mark.slow
async def test_drain_and_remove(tmp_path: Path) -> None:
    """Drain the workers of all masters together, and remove a deployment from all of them."""
    every = Partitions(COUNT, "a").all
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster, connected(cluster) as client:

        async def run(*arguments: str) -> str:
            env = environment(url_of(cluster), "a", DELTALOOM_PARTITIONS=str(COUNT))
            done = await asyncio.to_thread(deltaloom, *arguments, env=env)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert len({await owner_of(cluster, names) for names in every}) == 3
        await client.xadd("a:b:{1}:deltas", {"event": "{}"})
        async with running_workers(url_of(cluster), "a", 2, partitions=COUNT) as workers:
            await wait_until(partial(all_are_read, cluster, 2 * COUNT), message="all partitions are read")
            assert json.loads(await run("drain", "--json"))["drained"]
            for worker in workers:
                assert worker.has_logged("draining, reading stopped")
            for names in every:
                await client.xadd(names.deltas, {"event": "{}", "response_id": "r"})
            report = json.loads(await run("drain", "--json"))
            assert (report["drained"], report["unread"], report["reading"]) == (True, COUNT, 0)
            await run("drain", "--resume")
            await wait_until(partial(all_are_dead_letters, client, every), message="they read again")
        counted = await run("remove", "--prefix", "a", "--dry-run")
        number = len({key async for key in client.scan_iter("a:*")}) - 1
        assert counted.splitlines()[-1] == f"{number} keys of a"
        removed = await run("remove", "--prefix", "a", "--yes", "--force")
        assert removed.splitlines()[-1] == f"{number} keys of a removed"
        assert {key async for key in client.scan_iter("*")} == {b"a:b:{1}:deltas"}


async def all_are_dead_letters(client: Redis, every: tuple[StreamNames, ...]) -> bool:
    """Return whether each partition has a dead letter."""
    return all([await client.xlen(names.dead_letters) == 1 for names in every])


async def all_are_read(cluster: Cluster, readers: int = COUNT) -> bool:
    """Return whether as many clients wait for new entries, by default one on each partition."""
    clients = [await node.ask("INFO", "clients") for node in cluster.nodes]
    return bool(sum(each["blocked_clients"] for each in clients) == readers)


async def nothing_is_asked(cluster: Cluster) -> bool:
    """Return whether all other clients were idle for the last second."""
    for node in cluster.nodes:
        for line in str(await node.ask("CLIENT", "LIST", "TYPE", "normal")).splitlines():
            client = dict(pair.partition("=")[::2] for pair in line.split())
            asks_this = client["cmd"].startswith("client")
            if not asks_this and "b" not in client["flags"] and int(client["idle"]) < 1:
                return False
    return True


async def backlog(client: Redis, names: StreamNames, count: int) -> list[bytes]:
    """Add this many unread entries, and return their ids."""
    ids: list[bytes] = []
    for _ in range(0, count, 100):
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(100):
                pipeline.xadd(names.deltas, {"event": "{}"})
            ids += await pipeline.execute()
    return ids


@dataclass(frozen=True)
class Reader:
    """A reader with the client and the call that FastStream uses."""

    client: ReadingClient
    stream: str

    async def read(self) -> list[bytes]:
        """Read a batch, and return the ids of its entries."""
        reply: Any = await self.client.xreadgroup(GROUP, "one", {self.stream: ">"}, count=5000, block=100)
        return [entry_id for _, ((_, batch),) in reply for entry_id, _ in batch.collected]


@asynccontextmanager
async def reading(cluster: Cluster, client: Redis, names: StreamNames) -> AsyncIterator[Reader]:
    """Create the group of a partition, and open a reader on it."""
    group = ConsumerGroup(client, Keys(names), "one")
    await group.ensure()
    reader = reading_client_of(
        Address.parse(url_of(cluster)), {names.deltas: Input(group, RetryUntilAvailable())}
    )
    try:
        yield Reader(reader, names.deltas)
    finally:
        await reader.aclose()


async def move(cluster: Cluster, slot: int) -> None:
    """Move a slot to the next master, two keys at a time, while clients use them."""
    owner, masters = await cluster.owner(slot), await cluster.masters()
    target = masters[(masters.index(owner) + 1) % len(masters)]
    await cluster.begin_migration(slot, target)

    async def all_moved() -> bool:
        return not await cluster.move_keys(slot, target, limit=2)

    await wait_until(all_moved, 60, message=f"slot {slot} is moved")
    await cluster.end_migration(slot, target)


@pytest.mark.slow
async def test_a_master_dies_in_mid_stream(tmp_path: Path) -> None:
    """Workers survive a failover, and read again what the dead master had not replicated."""
    generated = Generated(Partitions(COUNT), "failover", 120)
    async with running_cluster(tmp_path, replicas=1) as cluster:
        producers = CarefulProducers(generated, partial(owner_of, cluster))
        async with running_workers(url_of(cluster), "deltaloom", 2, **SETTINGS, partitions=COUNT) as workers:
            async with connected(cluster) as client:
                await generated.keep_all(client)
            publishing = asyncio.create_task(producers.publish())
            lane = max(generated.lanes, key=lambda lane: len(lane.left))
            await producers.have_begun(lane)
            dead = await owner_of(cluster, lane.names)
            (heir,) = await cluster.replicas_of(dead)
            await kill_in_mid_stream(dead, heir, lane.names, workers[0])
            published = producers.published
            producers.go_on()
            await cluster.wait_until_replaced(dead)
            await cluster.start(dead)  # it joins as the replica
            await publishing
            assert producers.published == generated.entries > published
            async with connected(cluster) as client:
                await generated.judge(client)
            assert_nothing_failed(workers)
            assert any(worker.has_logged("redis unavailable, retrying") for worker in workers)


async def test_a_script_runs_where_its_slot_goes(tmp_path: Path) -> None:
    """A script runs during a migration even if the target master has never seen it."""
    async with running_cluster(tmp_path) as cluster:
        client = client_of(Address.parse(url_of(cluster)))
        try:
            names, script = Partitions(COUNT).all[0], Script(client, "load")
            assert await script(keys=[names.deltas], args=[0]) == [None]
            source = await owner_of(cluster, names)
            target = next(node for node in await cluster.masters() if node is not source)
            slot = await cluster.slot_of(names.deltas)
            await cluster.begin_migration(slot, target)
            assert await script(keys=[names.deltas], args=[0]) == [None]
        finally:
            await client.aclose()
