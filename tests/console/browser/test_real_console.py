"""Test the pages on a real console: a worker rebuilds what a producer publishes, and the browser shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from tests.console.browser.conftest import visiting
from tests.console.made import delta, done, publish
from tests.console.running import console
from tests.workers import workers_in_process

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = [pytest.mark.prove, pytest.mark.asyncio(loop_scope="session")]

WORDS = "<b>I'm sorry</b> \x1b[31m, but no."


async def test_a_refusal_is_seen_on_every_page(browser: Browser, redis_url: str, prefix: str) -> None:
    """Show a refusal at its first word, then its integrity and its alert, on the pages that have it."""
    settings: dict[str, Any] = {"redis_url": redis_url, "prefix": prefix}
    async with (
        Redis.from_url(redis_url) as redis,
        console(**settings) as client,
        visiting(browser, str(client.url(""))) as visit,
    ):
        page = await visit.to()
        await page.locator(".state:has-text('Live')").wait_for()
        await publish(redis, prefix, "resp_1", delta(1, WORDS[:5]), model="sonata", tenant="acme")
        await page.locator(".card-refused:has-text('sonata')").wait_for()
        async with workers_in_process(redis_url, prefix):
            await publish(redis, prefix, "resp_1", delta(2, WORDS[5:]), done(3, WORDS))
            await page.locator(".card .chip:text-is('verified')").wait_for()
            await page.locator(".card-alert").wait_for()
        await page.locator(".card .response-link").click()
        await page.locator('.whole-text:has-text("<b>I\'m sorry</b> ␛[31m, but no.")').wait_for()
        await page.locator(".part .chip:text-is('verified')").wait_for()
        await page.locator(".alert:has-text('Refusal finished')").wait_for()
        for query, words in {
            "?view=alerts": ".alert:has-text('Refusal began')",
            "?view=rates": ".unknown",
            "?view=health": "#partitions + .scroll tbody tr",
            "?view=search": ".empty-title:text-is('There is no archive.')",
        }.items():
            await visit.to(query)
            await page.locator(words).first.wait_for()
