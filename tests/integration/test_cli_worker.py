"""Tests of `deltaloom worker` as an operator starts it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from embedded.embedded_server import EmbeddedServer
from embedded.free_ports import free_port
from tests.service.cli.command import TIMEOUT, environment, running
from tests.waiting import wait_until
from tests.workers import logged

if TYPE_CHECKING:
    from tests.service.cli.command import Running


def events_logged(worker: Running) -> list[str]:
    """Return the event names that the worker has logged."""
    return [line["event"] for line in logged(worker.stderr)]


async def test_a_server_that_comes_later() -> None:
    """A worker that starts before its server waits for it, without flooding the log."""
    port = free_port()
    with running("worker", env=environment(f"redis://127.0.0.1:{port}")) as worker:
        await wait_until(lambda: "redis unavailable, retrying" in events_logged(worker), TIMEOUT)
        with EmbeddedServer(port=port, protected=False) as server:
            async with Redis.from_url(server.url) as client:
                await client.xadd(
                    "deltaloom:deltas",
                    {
                        "type": "response.refusal.done",
                        "refusal": "No.",
                        "item_id": "m",
                        "output_index": "0",
                        "content_index": "0",
                    },
                )

                async def written() -> bool:
                    return bool(await client.xlen("deltaloom:assembled"))

                await wait_until(written, TIMEOUT, message="the worker goes on by itself")
            assert worker.end(signal.SIGTERM) == 0
        # A second line is possible if the reason changes: the server may accept connections before it
        # answers.
        assert events_logged(worker).count("redis unavailable, retrying") <= 2
        assert "Traceback" not in worker.stderr
        assert worker.stdout == ""


async def test_it_can_be_stopped_while_the_server_is_away() -> None:
    """A worker that waits for its server can be stopped by SIGTERM."""
    with running("worker", env=environment(f"redis://127.0.0.1:{free_port()}")) as worker:
        await wait_until(lambda: "redis unavailable, retrying" in events_logged(worker), TIMEOUT)
        assert worker.end(signal.SIGTERM) == 0
        assert "Traceback" not in worker.stderr
