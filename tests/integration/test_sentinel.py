"""Workers on the master that a real sentinel group knows: the whole flow, and its death."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from deltaloom import Partitions
from service.address import Address
from service.storage.connection import client_of
from tests.generated import SETTINGS, Generated
from tests.sentinel_servers import SERVICE, running_sentinels
from tests.workers import running_workers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("waits", [{}, {"wait_replicas": 1}], ids=["asynchronous", "waiting for the replica"])
async def test_the_master_dies_in_mid_stream(tmp_path: Path, waits: dict[str, object]) -> None:
    """A failover would stop the workers for good, or have them take an entry or a text twice."""
    generated = Generated(Partitions(), "sentinel", 30)
    async with running_sentinels(tmp_path) as group:
        url = f"redis+sentinel://{group.addresses}/{SERVICE}/0"
        client = client_of(Address.parse(url), retry=Retry(NoBackoff(), 0))
        async with client, running_workers(url, "deltaloom", 2, **SETTINGS, **waits) as workers:
            await generated.publish(client, 0.5)
            # A failover loses what the replica has not yet, so the master dies in a quiet moment.
            await generated.wait_until_read(client)
            await group.wait_until_replicated()
            dead = await group.master()
            await dead.kill()
            publishing = asyncio.create_task(generated.publish(client))
            await group.wait_until_replaced(dead)
            if waits:
                assert not await generated.is_read(client)
                await group.start(dead)  # as the replica, which the workers wait for
            await publishing
            await generated.judge(client)
            for worker in workers:
                assert worker.said("redis is away, waiting for it")
                for line in worker.lines():
                    assert line["level"] != "error", line.get("exception", line)
