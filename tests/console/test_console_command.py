"""Test `deltaloom console` in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

import aiohttp

from embedded.free_ports import free_port
from tests.probes import Probes
from tests.service.cli.command import environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_console_serves_until_it_is_stopped(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Serve its pages, health and metrics; end with 0 after SIGTERM."""
    probes, port, log = Probes.of(tmp_path), free_port(), tmp_path / "log"
    file = tmp_path / "alerts.toml"
    file.write_text(
        '[destinations.team]\ntype = "webhook"\nurl = "https://x.example"\nsecret_env = "UNSET"\n'
    )
    env = environment(
        redis_url,
        prefix,
        DELTALOOM_CONSOLE_LISTEN=f"127.0.0.1:{port}",
        DELTALOOM_HTTP=probes.settings["http"],
        DELTALOOM_LOG_FORMAT="json",
    )
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service", "console", "--config", str(file)), env=env, stderr=stderr
        )
    try:
        await wait_until(lambda: '"console started"' in log.read_text(), 60, message="the console starts")
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
            session.get("/api/me") as answer,
        ):
            assert (await answer.json())["actions"] is False
        assert await probes.status("/readyz") == 200
        status, metrics = await probes.got("/metrics")
        assert status == 200
        assert 'deltaloom_console_requests_total{asked_for="api",status="200"} 1' in metrics
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert {json.loads(line)["level"] for line in log.read_text().splitlines()} == {"info"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
