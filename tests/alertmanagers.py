"""A Prometheus Alertmanager process for one test."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from embedded.free_ports import free_port
from tests.tiers import need
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """A running Alertmanager."""

    url: str
    session: aiohttp.ClientSession

    async def alerts(self) -> list[dict[str, Any]]:
        """Return its firing alerts."""
        async with self.session.get(f"{self.url}/api/v2/alerts") as response:
            found: list[dict[str, Any]] = await response.json()
        return found

    async def ready(self) -> bool:
        """Return whether it is ready."""
        try:
            async with self.session.get(f"{self.url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def alertmanager(folder: Path, receiver_url: str, group_by: list[str]) -> AsyncIterator[Alertmanager]:
    """Start an Alertmanager that notifies a webhook of firing groups after 200 ms, and of resolved ones.

    Args:
        folder: folder for its configuration and its data.
        receiver_url: URL of the webhook.
        group_by: labels that it groups alerts by.
    """
    program = need(
        "prometheus-alertmanager",
        "alertmanager",
        what="Alertmanager",
        package="prometheus-alertmanager",
        variable="DELTALOOM_TEST_ALERTMANAGER",
    )
    route = {"receiver": "hook", "group_by": group_by, "group_wait": "200ms", "group_interval": "300ms"}
    hook = {"url": receiver_url, "send_resolved": True}
    configuration = folder / "alertmanager.yml"  # JSON is YAML
    configuration.write_text(
        json.dumps({"route": route, "receivers": [{"name": "hook", "webhook_configs": [hook]}]}), "utf-8"
    )
    url = f"http://127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={configuration}",
        f"--storage.path={folder}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",  # no cluster
        "--log.level=error",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            started = Alertmanager(url, session)
            await wait_until(started.ready, 30, message="the Alertmanager is ready")
            yield started
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)
