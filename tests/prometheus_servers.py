"""A Prometheus for one test."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from embedded.free_ports import HOST, free_port
from tests.tiers import need
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def prometheus(folder: Path, config: dict[str, Any], *options: str) -> AsyncIterator[str]:
    """Run a Prometheus with a configuration and further options; yield its address once it is ready.

    Its database is `folder / "data"`. Skip the test if the program is not installed.
    """
    program = need("prometheus", what="Prometheus", package="prometheus")
    file, address = folder / "prometheus.yml", f"{HOST}:{free_port()}"
    file.write_text(json.dumps(config), "utf-8")  # JSON is YAML
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            *options,
            stdout=log,
            stderr=log,
        )
    try:
        await wait_until(lambda: _is_ready(address), message="Prometheus is ready")
        yield address
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)


async def _is_ready(address: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/-/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
