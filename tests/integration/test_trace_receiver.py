"""Test traces with another program's receiver: rotel, a collector that parses OTLP and writes it anew.

It exports the spans that it has understood to an HTTP server of the test.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deltaloom import StreamNames
from embedded.free_ports import HOST, free_port
from service.observability.tracing.conventions import SCHEMA_URL
from tests import bench
from tests.otlp import otel_environment, spans_at
from tests.receivers import receiving
from tests.streams import add
from tests.waiting import wait_until
from tests.workers import running_workers, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

pytestmark = pytest.mark.prove

TRACE, SPAN = "1" * 32, "2" * 16


@asynccontextmanager
async def collector(exports_to: str, log: Path) -> AsyncIterator[str]:
    """Run the collector; yield the URL at which it receives OTLP by HTTP."""
    found = find_spec("rotel")
    if found is None or found.origin is None:
        pytest.skip("needs rotel, which has packages for Linux and Python 3.10 to 3.13")
    address = f"{HOST}:{free_port()}"
    environment = {
        "ROTEL_OTLP_HTTP_ENDPOINT": address,
        "ROTEL_OTLP_GRPC_ENDPOINT": f"{HOST}:{free_port()}",
        "ROTEL_EXPORTER": "otlp",
        "ROTEL_OTLP_EXPORTER_PROTOCOL": "http",
        "ROTEL_OTLP_EXPORTER_ENDPOINT": exports_to,
        "ROTEL_OTLP_EXPORTER_COMPRESSION": "none",
        "ROTEL_BATCH_TIMEOUT": "50ms",
    }
    program = Path(found.origin).with_name("rotel-agent")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program, "start", env=environment, stdout=output, stderr=output
        )
    try:
        await wait_until(lambda: _accepts(address), message="the collector accepts connections")
        yield f"http://{address}"
    finally:
        process.kill()
        await process.wait()


async def _accepts(address: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address.split(":"))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_a_collector_takes_and_understands_spans(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Find the span of a batch, with its link, attributes and schema, behind the collector."""
    names = StreamNames(prefix)
    event = json.dumps(bench.delta(1, "canary-text", kind="refusal"))
    await add(
        redis,
        names.deltas,
        {"event": event, "response_id": "canary-response", "traceparent": f"00-{TRACE}-{SPAN}-01"},
    )
    async with receiving() as receiver, collector(receiver.url, tmp_path / "log") as url:
        for name, value in otel_environment(url).items():
            monkeypatch.setenv(name, value)
        async with running_workers(redis_url, prefix, consumer="w1"):
            await wait_until_settled(redis, prefix)
            await wait_until(lambda: receiver.received, message="the collector exports the span")
        (batch,) = spans_at(receiver)
        assert all(b"canary" not in request.body for request in receiver.received)
    assert batch.span.name == f"process {names.deltas}"
    assert batch.linked == {f"{TRACE}-{SPAN}"}
    assert (batch.scope, batch.schema_url) == ("deltaloom", SCHEMA_URL)
    assert batch.resource["service.name"] == "deltaloom-worker"
    assert batch.attributes["messaging.batch.message_count"] == 1
    assert batch.attributes["deltaloom.batch.redelivered"] is False
