"""`deltaloom alerts test`: does it arrive, and how does it look there?"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.alerts.file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.alerts.delivery import Notification, Outcome
    from service.alerts.policy import Loaded

EXAMPLES = examples("deltaloom alerts test on-call")

_TEXT = "I'm sorry, but I can't help with that."


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the destination.", show_default=False)],
    config: ConfigFile = DEFAULT,
) -> None:
    """Send a test alert to a destination, marked as one, and say what it answers. No server is needed."""
    from service import logs
    from service.alerts.policy import load
    from service.cli.connection import read_settings

    logs.configure(read_settings())  # for a destination that is a log: what may be in it is a setting
    asyncio.run(_test(name, load(config, os.environ)))


async def _test(name: str, loaded: Loaded) -> None:
    from service.alerts.delivery import Verdict
    from service.alerts.destinations.kinds import made
    from service.cli.errors import CommandError
    from service.cli.output import console, visible

    if name not in loaded.destinations:
        known = ", ".join(loaded.destinations) or "none at all"
        raise CommandError(f"there is no destination {name} in the file; there is {known}")
    destination = made(name, loaded.destinations[name], os.environ)
    try:
        outcome: Outcome = await destination.deliver(notification(datetime.now(UTC)))
    finally:
        await destination.aclose()
    if outcome.verdict is not Verdict.DELIVERED:
        raise CommandError(f"{name} did not take it ({outcome.verdict.value}): {visible(outcome.answer)}")
    console().print(f"{name} took it: {visible(outcome.answer)}")


def notification(now: datetime) -> Notification:
    """A refusal that nobody made, in full: its text is our own."""
    import hashlib
    import uuid

    from deltaloom.messages import ModerationAlert
    from service.alerts.delivery import Notification
    from service.alerts.phases import group_of

    name = f"test_{uuid.uuid4().hex}"
    alert = ModerationAlert(
        type="deltaloom.refusal.opened",
        id=name,
        response_id=name,
        item_id=None,
        kind="refusal",
        output_index=0,
        content_index=0,
        text=_TEXT,
        severity="info",
        model="test-model",
        tenant="test-tenant",
        raised_at=now,
    )
    return Notification(
        id=name,
        alert=alert,
        severity="info",
        category="test",
        rule=None,
        route="test",
        privacy="full",
        text_sha256=hashlib.sha256(_TEXT.encode()).hexdigest(),
        group=group_of(alert),
        test=True,
    )
