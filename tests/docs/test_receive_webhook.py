"""Test the webhook receiver of the examples: a process that receives real alerts."""

from __future__ import annotations

import asyncio
import base64
import os
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from service.alerts.delivery import Verdict
from service.alerts.destinations.registry import create_destination
from service.alerts.destinations.webhook import WebhookOptions
from tests.docs.scripts import EXAMPLES, PYTHON
from tests.notifications import alert, finished, notification

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.alerts.delivery import Destination

OURS, ANOTHER = ("whsec_" + base64.b64encode(each * 32).decode() for each in (b"o", b"a"))


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """Run the example, and yield its address and its output."""
    env = {**os.environ, "WEBHOOK_SECRET": OURS, "PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        *PYTHON, EXAMPLES / "receive_webhook.py", env=env, stdout=PIPE
    )
    assert process.stdout
    try:
        first = await asyncio.wait_for(process.stdout.readline(), 60)
        yield first.decode().removeprefix("listening on ").strip(), process.stdout
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)


def webhook(url: str, secret: str) -> Destination:
    """Return a destination that posts to this URL."""
    table = {"type": "webhook", "url": url, "secret_env": "SECRET", "allow_addresses": ["127.0.0.1"]}
    return create_destination("example", WebhookOptions.model_validate(table), {"SECRET": secret})


async def test_signed_alerts_are_accepted_once() -> None:
    """Accept signed alerts once, and refuse others."""
    first = notification(alert(text="no"))
    async with receiver() as (url, printed):
        right, wrong = webhook(url, OURS), webhook(url, ANOTHER)
        verdicts = [(await right.deliver(each)).verdict for each in (first, first)]
        refused = await wrong.deliver(finished(text="forged"))
        verdicts.append((await right.deliver(finished(text="no, sorry"))).verdict)
        await right.aclose()
        await wrong.aclose()
        lines = [(await asyncio.wait_for(printed.readline(), 60)).decode() for _ in range(2)]
    assert verdicts == [Verdict.DELIVERED] * 3
    assert (refused.verdict, refused.answer) == (Verdict.REFUSED, "401 Unauthorized")
    assert lines == [
        "deltaloom.refusal.opened critical self-harm resp_1 no\n",
        "deltaloom.refusal.finished critical self-harm resp_1 no, sorry\n",
    ]
