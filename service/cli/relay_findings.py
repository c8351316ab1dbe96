"""The finding of `deltaloom check` about alerts that wait for their destinations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from service.cli.output import plural
from service.ports.storage import SetupError, StorageUnavailableError
from service.storage.client.server import ServerFinding
from service.storage.redis_outbox import RedisOutbox, backlogs

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom.streams import Partitions
    from service.ports.deployment_figures import BacklogFigures

_LATE_SECONDS = 60
"""Age in seconds from which a waiting alert makes the finding a warning."""


async def relays(client: Redis, partitions: Partitions) -> list[ServerFinding]:
    """Check the backlog of each destination; return no finding if there never was a destination."""
    try:
        found = await backlogs(client, [names.alerts for names in partitions.all])
        disabled = {name: await RedisOutbox(client, partitions, name).disabled_answer() for name in found}
    except StorageUnavailableError as error:
        return [ServerFinding("relays", "warn", f"unknown: {error}")] if isinstance(error, SetupError) else []
    except ResponseError as error:
        return [ServerFinding("relays", "warn", f"unknown: {error}")]
    if not found:
        return []
    wrong = [
        *(
            f"{name} is disabled ({answer}): deltaloom alerts enable {name}"
            for name, answer in disabled.items()
            if answer
        ),
        *(
            waiting(name, each)
            for name, each in found.items()
            if each.oldest_seconds(time.time()) > _LATE_SECONDS
        ),
    ]
    if wrong:
        return [ServerFinding("relays", "warn", f"{'; '.join(wrong)}. The relay's log has the last answer")]
    return [ServerFinding("relays", "ok", "; ".join(waiting(name, each) for name, each in found.items()))]


def waiting(name: str, backlog: BacklogFigures) -> str:
    """Return how many alerts wait for a destination, as a phrase."""
    if not backlog.alerts:
        return f"{name}: no alert waits"
    verb = "waits" if backlog.alerts == 1 else "wait"
    oldest = backlog.oldest_seconds(time.time())
    return f"{name}: {plural(backlog.alerts, 'alert')} {verb}, the oldest for {oldest:,.0f} s"
