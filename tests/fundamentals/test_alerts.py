"""Alerts: what a moderation team learns about a refusal, and when."""

from aiohttp import web

from tests.fundamentals.loom import Loom, refusal
from tests.waiting import wait_until
from tests.webhook_receiver import Receiver


async def test_an_alert_is_raised_at_the_first_word(loom: Loom) -> None:
    """A refusal raises an alert while the model still writes it, and another one with the whole text."""
    first, *rest = refusal("I'm", " sorry,", " but no.")
    async with loom.worker():
        await loom.publish(first)
        (opened,) = await wait_until(loom.alerts)
        assert (opened.type, opened.text) == ("deltaloom.refusal.opened", "I'm")
        assert await loom.texts() == []

        await loom.publish(*rest)
        await loom.all_is_processed()

    _, finished = await loom.alerts()
    assert (finished.type, finished.text) == ("deltaloom.refusal.finished", "I'm sorry, but no.")
    assert (finished.status, finished.integrity) == ("completed", "verified")


async def test_an_alert_is_delivered_once(loom: Loom, webhook: Receiver) -> None:
    """A relay sends an alert until the webhook confirms it, and then never again."""
    async with loom.worker():
        await loom.publish(*refusal("I'm sorry."))
        await loom.all_is_processed()
    opened, finished = await loom.alerts()  # in Redis, where they wait for a relay

    webhook.answer = lambda _id, _attempt: web.Response(status=200 if webhook.requests else 503)
    async with loom.relay_to(webhook):
        await loom.all_is_delivered()
    async with loom.relay_to(webhook):  # the relay starts again
        await loom.all_is_delivered()

    assert webhook.taken == [opened.id, finished.id]
    assert [request.status for request in webhook.requests] == [503, 200, 200]
