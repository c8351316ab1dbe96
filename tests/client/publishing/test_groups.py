"""Test the publisher with a cluster, and with a master behind sentinels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis import Redis

from deltaloom import Partitions, Publisher
from tests.client.publishing.streams_of_events import events_of, refusal, texts_of
from tests.cluster_servers import running_cluster
from tests.docs.pages import ROOT
from tests.sentinel_servers import SERVICE, running_sentinels
from tests.users import password, rules_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER_RIGHTS = ("+cluster|slots", "+command", "+asking")
"""Rights that docs/operations.md adds on a cluster."""

WORDS = [f"<{number}>" for number in range(20)]


@pytest.mark.slow
async def test_cluster_gets_each_partition(tmp_path: Path) -> None:
    """Write to all partitions as `producer`, also after a master was replaced and while a slot is moved."""
    assert f"`{' '.join(CLUSTER_RIGHTS)}`" in (ROOT / "docs/operations.md").read_text("utf-8")
    names = Partitions(8)
    async with running_cluster(tmp_path, replicas=1) as cluster:
        for node in cluster.nodes:
            await node.ask("ACL", "SETUSER", "producer", *rules_of("producer"), *CLUSTER_RIGHTS)
        seeds = ",".join(node.address for node in cluster.nodes)
        url = f"redis+cluster://producer:{password('producer')}@{seeds}"
        publisher = Publisher(url, partitions=8, timeout=1)
        try:
            streams = [publisher.stream(f"resp_{number}") for number in range(16)]
            events = refusal(WORDS)
            for event in events[:5]:
                for stream in streams:
                    stream.offer([event])
            await wait_until(lambda: publisher.counters.waiting == 0, message="all is confirmed")
            await cluster.wait_until_replicated()
            dead = (await cluster.masters())[0]
            await dead.kill()
            for event in events[5:]:
                for stream in streams:
                    stream.offer([event])
            await cluster.wait_until_replaced(dead)
            await wait_until(lambda: publisher.counters.waiting == 0, 60, message="all is confirmed")
            slot = await cluster.slot_of(names.of(streams[0].response_id).deltas)
            owner = await cluster.owner(slot)
            target = next(each for each in await cluster.masters() if each is not owner)
            await cluster.begin_migration(slot, target)
            await cluster.move_keys(slot, target)
            streams[0].offer(events[-1:])  # the old owner answers ASK
            await wait_until(lambda: publisher.counters.waiting == 0, 60, message="all is confirmed")
            await cluster.end_migration(slot, target)
            assert publisher.counters.dropped == {}
            refused = [entry for node in cluster.alive for entry in await node.ask("ACL", "LOG")]
            assert refused == []
        finally:
            publisher.close(0)
        for stream in streams:
            key = names.of(stream.response_id).deltas
            owner = await cluster.owner(await cluster.slot_of(key))
            with Redis(port=owner.port) as client:
                found = events_of([fields for _, fields in client.xrange(key)])[stream.response_id]
            assert texts_of(found) == {("response.refusal.delta", 0): "".join(WORDS)}


@pytest.mark.slow
async def test_sentinels_name_the_master(tmp_path: Path) -> None:
    """Write to the master that the sentinels name, and to its successor after it died."""
    async with running_sentinels(tmp_path, replicas=1) as group:
        publisher = Publisher(f"redis+sentinel://{group.addresses}/{SERVICE}", timeout=1)
        try:
            stream = publisher.stream("resp_1")
            events = refusal(WORDS)
            stream.offer(events[:5])
            await wait_until(lambda: publisher.counters.waiting == 0, message="all is confirmed")
            await group.wait_until_replicated()
            dead = await group.master()
            await dead.kill()
            stream.offer(events[5:])
            await group.wait_until_replaced(dead)
            await wait_until(lambda: publisher.counters.waiting == 0, 60, message="all is confirmed")
            assert publisher.counters.dropped == {}
        finally:
            publisher.close(0)
        with Redis(port=(await group.master()).port) as client:
            found = events_of([fields for _, fields in client.xrange("deltaloom:deltas")])["resp_1"]
        assert texts_of(found) == {("response.refusal.delta", 0): "".join(WORDS)}
