"""Entries that are too large to be stored whole, or to be read at all."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from functools import partial
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from typing_extensions import override

from deltaloom import GROUP, StreamNames
from service.field_json import fields_of
from service.storage.scripts import source
from tests.nodes import Node, running
from tests.redis_proxies import RedisProxy
from tests.relays import relay_environment
from tests.waiting import wait_until
from tests.workers import dead_letters, texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from pathlib import Path

MEGABYTE = 1_000_000
KEPT = 8 * 1024 * 1024
TIMEOUT = 0.5
"""Seconds after which a worker gives up a command on the slow server."""
COPYING = (b"XCLAIM", sha1(source("peek").encode(), usedforsecurity=False).hexdigest().encode())
"""Parts of the requests that copy whole entries."""
REFUSAL = {"type": "response.refusal.done", "output_index": 0, "content_index": 0, "refusal": "No."}


async def publish(client: Redis, prefix: str, response: str, event: str | bytes) -> None:
    """Add an entry to the input."""
    fields: dict[Any, Any] = {"response_id": response, "event": event}
    await client.xadd(StreamNames(prefix).deltas, fields)


async def test_the_letter_of_a_large_entry_has_its_beginning(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """The dead letter of an oversized entry has only its first 16 MiB, to keep the server responsive."""
    body = "[" + "é" * (10 * MEGABYTE)
    await publish(redis, prefix, "resp_large", body)
    await publish(redis, prefix, "resp_1", json.dumps(REFUSAL))
    async with workers_in_process(redis_url, prefix):
        await wait_until(partial(dead_letters, redis, prefix), 30, message="there is a letter")
        await wait_until_settled(redis, prefix)
    (letter,) = await dead_letters(redis, prefix)
    assert (letter.reason, letter.entry_bytes) == (
        "oversized",
        len("response_idresp_largeevent") + 20 * MEGABYTE + 1,
    )
    kept = fields_of(letter.entry)
    assert list(kept) == ["response_id", "event"]
    size = sum(len(name) + len(value) for name, value in kept.items())
    assert KEPT - 1 <= size <= KEPT
    assert body.startswith(kept["event"].decode())
    assert [text.text for text in await texts(redis, prefix)] == ["No."]


class SlowServer(RedisProxy):
    """A proxy in front of a server that takes long to copy an entry, as a busy one does with a huge one."""

    def __init__(self, url: str, entry_id: bytes) -> None:
        super().__init__(url)
        self._entry_id = entry_id
        self._copying: set[int] = set()

    @override
    async def passes(self, connection: int, data: bytes, *, is_reply: bool) -> bool:
        if is_reply and connection in self._copying:
            self._copying.remove(connection)
            await asyncio.sleep(3 * TIMEOUT)
        elif not is_reply and self._entry_id in data and any(each in data for each in COPYING):
            self._copying.add(connection)
        return True


@pytest.mark.parametrize("deliveries", [1, 2, 5])
async def test_an_entry_that_is_never_read_in_time_holds_up_no_other(
    redis: Redis, redis_url: str, prefix: str, deliveries: int
) -> None:
    """Give it up, and read the others. Otherwise the server would copy it again and again, without end."""
    names = StreamNames(prefix)
    client: Any = redis
    await publish(redis, prefix, "resp_huge", "x" * 100_000)
    await publish(redis, prefix, "resp_1", json.dumps(REFUSAL))
    await redis.xgroup_create(names.deltas, GROUP, id="0")
    await redis.xreadgroup(GROUP, "dead", {names.deltas: ">"})
    ids = [entry_id for entry_id, _ in await client.xrange(names.deltas)]
    await client.xclaim(names.deltas, GROUP, "dead", 0, ids, idle=60_000, retrycount=deliveries, justid=True)
    async with SlowServer(redis_url, ids[0]).running() as port:
        url = f"redis://127.0.0.1:{port}?socket_timeout={TIMEOUT}"
        async with workers_in_process(url, prefix, max_event_bytes=1024, max_deliveries=5):
            await wait_until_settled(redis, prefix)
    letters = {letter.reason for letter in await dead_letters(redis, prefix)}
    if deliveries < 5:
        assert letters == {"oversized"}
        assert [text.text for text in await texts(redis, prefix)] == ["No."]
    else:
        assert letters == {"max_deliveries"}


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_an_entry_larger_than_the_memory_of_its_workers_stops_them_for_a_while_only(
    tmp_path: Path,
) -> None:
    """An entry that exceeds its workers' memory becomes a dead letter after `max_deliveries` crashes."""
    server = Node(tmp_path / "server", {"save": ""})
    url = f"{server.url}?socket_timeout=60"  # else a busy server may reply too late to kill any
    environment = relay_environment(url, "deltaloom", claim_time=1, max_deliveries=3, block_ms=200)
    command = [sys.executable, "-m", "service", "worker"]
    async with running([server]), Redis.from_url(server.url, socket_timeout=60) as client:
        await publish(client, "deltaloom", "resp_huge", "x" * (300 * MEGABYTE))
        await publish(client, "deltaloom", "resp_1", json.dumps(REFUSAL))
        limit = partial(resource.setrlimit, resource.RLIMIT_AS, (600 * MEGABYTE, 600 * MEGABYTE))
        started = 0

        async def done() -> bool:
            return bool(await dead_letters(client, "deltaloom")) and bool(await texts(client, "deltaloom"))

        while not await done():
            started += 1
            assert started < 8, "the workers are stopped for good"
            with (tmp_path / f"{started}.log").open("wb") as log:
                worker = await asyncio.create_subprocess_exec(
                    *command, env=environment, stdout=log, stderr=log, preexec_fn=limit
                )
            ended = asyncio.create_task(worker.wait())
            try:
                await wait_until(partial(done_or_ended, done, ended), 60, message="it ends")
            finally:
                if not ended.done():
                    worker.terminate()
                await ended
        (letter,) = await dead_letters(client, "deltaloom")
        assert letter.reason == "max_deliveries"
        assert letter.entry_bytes == len("response_idresp_hugeevent") + 300 * MEGABYTE
        assert [text.text for text in await texts(client, "deltaloom")] == ["No."]


async def done_or_ended(done: Any, ended: asyncio.Task[int]) -> bool:
    """Return whether the expected output has come out, or the worker has ended."""
    return ended.done() or bool(await done())
