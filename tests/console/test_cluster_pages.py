"""Test the pages on a real Redis Cluster, whose partitions are on different masters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import Partitions
from deltaloom.address import Address
from service.storage.client.connection import client_of
from tests.cluster_servers import PATIENT_MS, running_cluster
from tests.console.made import delta, done
from tests.console.running import console
from tests.waiting import wait_until
from tests.workers import workers_in_process

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 6
"""Number of partitions: enough that each of the three masters has some."""

pytestmark = pytest.mark.timeout(240)


@pytest.mark.slow
async def test_each_page_shows_all_partitions(tmp_path: Path) -> None:
    """A person sees the response of each partition, under way and finished, its alerts, and all rates."""
    partitions = Partitions(COUNT)
    of_partition = {partitions.of(name): name for name in (f"resp_{number}" for number in range(200))}
    ids = set(of_partition.values())
    assert len(ids) == COUNT
    async with running_cluster(tmp_path, node_timeout_ms=PATIENT_MS) as cluster:
        url = f"redis+cluster://{cluster.addresses}"
        assert len({await cluster.owner(await cluster.slot_of(each.deltas)) for each in of_partition}) == 3
        client = client_of(Address.parse(url))

        async def publish(*events: dict[str, Any]) -> None:
            for names, name in of_partition.items():
                for event in events:
                    fields: Any = {"event": json.dumps(event), "response_id": name, "model": "sonata"}
                    await client.xadd(names.deltas, fields)

        try:
            async with (
                console(redis_url=url, partitions=COUNT) as visitor,
                visitor.watching() as page,
                workers_in_process(url, "deltaloom", partitions=COUNT, sweep_interval=0.1),
            ):
                await publish(delta(1, "I can't"))
                await page.until(lambda page: set(page.rows) == ids)
                await publish(done(2, "I can't"), {"type": "response.completed", "response": {"output": []}})
                await page.until(
                    lambda page: all(row["parts"][0]["integrity"] == "verified" for row in page.rows.values())
                )
                for name in ids:
                    response = await visitor.json(f"api/responses/{name}")
                    assert [part["text"] for part in response["parts"]] == ["I can't"]
                    assert len(response["alerts"]) == 2
                alerts = (await visitor.json("api/alerts?type=deltaloom.refusal.finished"))["alerts"]
                assert {alert["response_id"] for alert in alerts} == ids

                async def counted() -> Any:
                    groups = (await visitor.json("api/rates?hours=24"))["groups"]
                    return groups and groups[0]["total"][:2] == [COUNT, COUNT]

                await wait_until(counted)
                health = await visitor.json("api/health")
                assert [row["name"] for row in health["partitions"]] == [
                    each.deltas for each in partitions.all
                ]
                assert all("error" not in row for row in health["partitions"])
                assert sorted(health["workers"][0]["partitions"]) == [*range(COUNT)]
        finally:
            await client.aclose()
