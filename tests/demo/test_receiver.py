"""Test the demo's webhook receiver over HTTP: it counts signed deliveries only."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import aiohttp

from demo.clock import Clock
from demo.progress import Progress
from demo.receiver import Webhooks
from demo.stream import load as streams
from service.alerts.deciding.policy import load
from service.alerts.destinations.registry import create_destination
from tests.notifications import finished

if TYPE_CHECKING:
    from pathlib import Path


async def test_signed_alert_rings(tmp_path: Path) -> None:
    """Record a signed alert with its severity and category."""
    progress = Progress(streams())
    with closing(Webhooks()) as webhooks:
        loaded = load(webhooks.configure(tmp_path / "alerts.toml"), webhooks.environment)
        destination = create_destination("webhook", loaded.destinations["webhook"], webhooks.environment)
        async with webhooks.taking(progress, Clock()):
            outcome = await destination.deliver(finished())
        await destination.aclose()
    assert outcome.answer == "204 No Content"
    (rang,) = progress.rings
    assert rang.message == finished().alert
    assert (rang.severity, rang.category) == (finished().severity, finished().category)
    assert progress.refused == []


async def test_unsigned_alert_is_refused(tmp_path: Path) -> None:
    """Refuse an unsigned alert with status 401.

    Otherwise the demo's claim about signatures would be false.
    """
    progress = Progress(streams())
    with closing(Webhooks()) as webhooks:
        loaded = load(webhooks.configure(tmp_path / "alerts.toml"), webhooks.environment)
        url = loaded.destinations["webhook"].model_dump()["url"]
        async with (
            webhooks.taking(progress, Clock()),
            aiohttp.ClientSession() as session,
            session.post(url, json={"type": "deltaloom.refusal.opened"}) as response,
        ):
            assert response.status == 401
    assert progress.rings == []
    assert progress.refused == ["Missing required headers"]
