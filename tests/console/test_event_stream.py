"""Tests of the event stream: coalesced, bounded, resumed, filtered, and of clients that do not read."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from console.live_views import FRAME_BYTES
from deltaloom.streams import Partitions
from tests.console.made import delta, done, publish
from tests.console.running import console
from tests.waiting import wait_until

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def test_frames_are_coalesced(redis: Redis, redis_url: str, prefix: str) -> None:
    """However fast words come, a page gets at most ten frames a second, and all words."""
    async with console(redis_url=redis_url, prefix=prefix) as client, client.watching() as page:
        await page.next()
        words = [delta(number, f"{number} ") for number in range(1, 301)]
        publishing = asyncio.create_task(publish(redis, prefix, "resp_1", *words))
        times = []
        while "300 " not in page.rows.get("resp_1", {"parts": [{"text": ""}]})["parts"][0]["text"]:
            await page.next()
            times.append(page.last["at"])
        await publishing
        assert min((b - a for a, b in pairwise(times)), default=100) >= 95
        assert page.rows["resp_1"]["parts"][0]["text"] == "".join(f"{n} " for n in range(1, 301))


async def test_a_page_resumes_where_it_was(redis: Redis, redis_url: str, prefix: str) -> None:
    """A page that connects again gets what it has missed, and everything if that is not known any more."""
    async with console(redis_url=redis_url, prefix=prefix) as client:
        async with client.watching() as page:
            await page.next()
            await publish(redis, prefix, "resp_1", delta(1, "one"))
            await publish(redis, prefix, "resp_2", delta(1, "two"))
            await page.until(lambda page: len(page.rows) == 2)
        await publish(redis, prefix, "resp_2", delta(2, " more"))
        async with client.watching(headers={"Last-Event-ID": page.last_id}) as again:
            await again.until(lambda page: page.rows)
            assert again.events[0] == "change"
            assert list(again.rows) == ["resp_2"]
        for unknown in ("another-1", "", "-1", f"{client.app.live.run}-99999999999", "x" * 5000):
            async with client.watching(headers={"Last-Event-ID": unknown}) as fresh:
                await fresh.next()
                assert (fresh.events, len(fresh.rows)) == (["state"], 2), unknown


async def test_a_stalled_page_costs_nobody_else(redis: Redis, redis_url: str, prefix: str) -> None:
    """A page that does not read holds a frame and no more; others get each word at once."""
    async with console(redis_url=redis_url, prefix=prefix) as client:
        stalled = socket.create_connection(("127.0.0.1", client.app.port))
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(b"GET /api/now HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await wait_until(lambda: client.app.streams == 1)
        async with client.watching() as page:
            await page.next()
            for number in range(1, 21):
                words = [delta(1, f"{number} " + "x" * 3900)]
                for n in range(20):
                    await publish(redis, prefix, f"resp_{number}_{n}", *words)
                await page.until(lambda page, number=number: f"resp_{number}_19" in page.rows)
                assert not page.last["behind"]
            (connection,) = [
                transport for transport in client.app.connections if transport.get_write_buffer_size() > 0
            ]
            assert connection.get_write_buffer_size() <= 2 * FRAME_BYTES
            assert len(page.rows) == 200
        stalled.close()
        await wait_until(lambda: client.app.streams == 0)


async def test_only_what_fits_is_shown_and_decoded(redis: Redis, redis_url: str, prefix: str) -> None:
    """A filter shows its responses alone, and those that it cannot show are not decoded."""
    async with (
        console(redis_url=redis_url, prefix=prefix) as client,
        client.watching("api/now?model=sonata&status=refused&kind=refusal") as page,
    ):
        await page.next()
        await publish(redis, prefix, "other", delta(1, "No"), model="etude")
        await publish(redis, prefix, "answer", delta(1, "Yes", "output_text"), model="sonata")
        await publish(redis, prefix, "wanted", delta(1, "No"), model="sonata")
        await page.until(lambda page: page.rows)
        assert list(page.rows) == ["wanted"]
        seen = client.app.live.responses
        assert seen.get("answer") is not None
        assert seen.get("other") is None


async def test_a_response_that_no_longer_fits_leaves(redis: Redis, redis_url: str, prefix: str) -> None:
    """A response that is over leaves the view of those under way."""
    async with (
        console(redis_url=redis_url, prefix=prefix) as client,
        client.watching("api/now?status=open") as page,
    ):
        await page.next()
        await publish(redis, prefix, "resp_1", delta(1, "No"))
        await page.until(lambda page: page.rows)
        end = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "x"}}}
        await publish(redis, prefix, "resp_1", end)
        await page.until(lambda page: not page.rows)
        assert page.last["gone"] == ["resp_1"]


async def test_nothing_is_read_while_nobody_looks(redis: Redis, redis_url: str, prefix: str) -> None:
    """A console that nobody looks at costs the server nothing."""
    async with console(redis_url=redis_url, prefix=prefix) as client:
        await publish(redis, prefix, "resp_1", delta(1, "No"))
        await client.json("api/me")
        assert client.app.live.entries == 0
        async with client.watching() as page:
            await page.until(lambda page: page.rows)
        assert client.app.live.entries > 0


@pytest.mark.parametrize(
    "query",
    ["model=" + "x" * 2000, "models=x", "status=a&status=b", "texts=yes", "freeze=1"],
)
async def test_wrong_parameters_are_refused(query: str) -> None:
    """A typo does not show everything, and no value is without a limit."""
    async with console() as client:
        assert await client.status(f"api/now?{query}") == 400


@pytest.mark.parametrize(
    "path",
    [
        *("alerts?limit=0", "alerts?limit=201", "alerts?limit=٣", "alerts?limit=1e1", "alerts?before=now"),
        *("alerts?before=0-0", "alerts?before=%D9%A3-0", "alerts?before=99999999999999999999-0"),
        *("alerts?outcome=lost", "alerts?before=1-" + "1" * 30, "rates?hours=2", "rates?hours=-1"),
        *("rates?by=safety_identifier", "health?x=", "search?before=x", "responses/" + "x" * 9000),
    ],
)
async def test_parameters_have_limits(path: str) -> None:
    """Numbers, choices and ids from outside have limits, before Redis is asked."""
    async with console(archive_url="sqlite:/nonexistent/archive.db") as client:
        assert await client.status(f"api/{path}") == 400


async def test_there_is_a_limit_of_pages(redis_url: str, prefix: str) -> None:
    """Too many pages are refused with a sentence, and those that watch go on."""
    async with (
        console(redis_url=redis_url, prefix=prefix, console_max_streams=1) as client,
        client.watching() as page,
    ):
        await page.next()
        async with client.session.get(client.url("api/now")) as answer:
            assert answer.status == 503
            assert "too many pages" in (await answer.json())["error"]


async def test_a_server_that_is_away_is_said() -> None:
    """A page says that what it shows may be old, and an answer that cannot be given is a sentence."""
    async with console() as client:
        async with client.watching() as page:
            await page.next()
            await wait_until(lambda: client.app.live.behind)
        async with client.session.get(client.url("api/health")) as answer:
            assert answer.status == 503
            assert "Redis does not answer" in (await answer.json())["error"]


async def test_partitions_are_watched_together(redis: Redis, redis_url: str, prefix: str) -> None:
    """A page shows responses of all partitions."""
    partitions = Partitions(3, prefix)
    async with (
        console(redis_url=redis_url, prefix=prefix, partitions=3) as client,
        client.watching() as page,
    ):
        await page.next()
        names = {f"resp_{number}" for number in range(12)}
        for name in names:
            event = json.dumps(delta(1, "No"))
            await redis.xadd(partitions.of(name).deltas, {"event": event, "response_id": name})
        await page.until(lambda page: set(page.rows) == names)


async def test_late_input_is_skipped(redis: Redis, redis_url: str, prefix: str) -> None:
    """A console that cannot follow shows what is new, and says that it is behind."""
    async with console(redis_url=redis_url, prefix=prefix) as client, client.watching() as page:
        long_ago = round(time.time() * 1000) - 60_000
        event = json.dumps(delta(1, "No"))
        first: Any = {"event": event, "response_id": "resp_0"}
        await redis.xadd(f"{prefix}:deltas", first, id=f"{long_ago}-0")
        await page.until(lambda page: "resp_0" in page.rows)
        pipeline = redis.pipeline(transaction=False)
        for number in range(5000):
            fields = {"event": event, "response_id": "resp_1"}
            pipeline.xadd(f"{prefix}:deltas", fields, id=f"{long_ago}-{number + 1}")  # type: ignore[arg-type]  # invariant
        await pipeline.execute()
        await wait_until(lambda: client.app.live.skipped)
        await page.until(lambda page: page.last["behind"])
        await publish(redis, prefix, "resp_2", delta(1, "new"), done(2, "new"))
        await page.until(lambda page: "resp_2" in page.rows)
