"""Tests of the page of responses under way, on a real server and with a real worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console import live_reading
from tests.console.made import delta, done, publish
from tests.console.running import console
from tests.waiting import wait_until
from tests.workers import workers_in_process

if TYPE_CHECKING:
    import pytest
    from redis.asyncio import Redis


async def test_words_grow_as_they_come(redis: Redis, redis_url: str, prefix: str) -> None:
    """A page shows each text as soon as its words come, refused from the first one on."""
    async with console(redis_url=redis_url, prefix=prefix) as client, client.watching() as page:
        await page.next()
        await publish(redis, prefix, "resp_1", delta(1, "I'm "), model="sonata", tenant="acme")
        await page.until(lambda page: "resp_1" in page.rows)
        row = page.rows["resp_1"]
        assert row["refused"]
        assert (row["model"], row["tenant"], row["status"]) == ("sonata", "acme", "open")
        await publish(redis, prefix, "resp_1", delta(2, "sorry"))
        await page.until(lambda page: page.rows["resp_1"]["parts"][0]["text"] == "I'm sorry")
        async with workers_in_process(redis_url, prefix):
            await publish(redis, prefix, "resp_1", done(3, "I'm sorry"))
            await page.until(lambda page: page.rows["resp_1"]["parts"][0]["integrity"] == "verified")
        await page.until(lambda page: page.rows["resp_1"]["alert"] is not None)
        row = page.rows["resp_1"]
        assert row["status"] == "completed"
        assert row["alert"]["type"] == "deltaloom.refusal.opened"


async def test_large_entries_are_read_few_at_a_time(
    redis: Redis, redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that opens reads no more of the past than fits, and later entries all the same."""
    monkeypatch.setattr(live_reading, "_LARGE", 100_000)
    for number in range(200):
        await redis.xadd(f"{prefix}:assembled", {"__data__": "x" * 20_000}, id=f"1-{number}")
    async with console(redis_url=redis_url, prefix=prefix) as client, client.watching() as page:
        await page.next()
        await wait_until(lambda: client.app.live.entries == 10, message="the first entries are read")
        for number in range(200):
            await redis.xadd(f"{prefix}:assembled", {"__data__": "x" * 20_000}, id=f"2-{number}")
        await wait_until(lambda: client.app.live.entries == 10 + 200, message="the later entries are read")
