"""Search the stream of alerts by any of their ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.alert_parsing import NotAnAlertError, parse_alert
from service.cli.partitions import located
from service.storage.pages import backwards, entry

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from deltaloom.messages import ModerationAlert
    from deltaloom.streams import Partitions, StreamNames

LOOKED_THROUGH = 50_000
"""Maximum alerts searched in a partition, newest first."""

MAX_FOUND = 100

_ENTRY_ID = re.compile(r"(\d+:)?\d+-\d+")
_ID_FIELDS = (b"id", b"response_id", b"item_id")
"""Entry fields with ids, which are compared before the JSON is parsed."""


async def alerts_of(client: Redis, partitions: Partitions, wanted: str) -> list[ModerationAlert]:
    """Return alerts with this entry id, alert id, response id or item id, the oldest first."""
    if _ENTRY_ID.fullmatch(wanted):
        names, entry_id = located(partitions, wanted)
        found = await entry(client, names.alerts, entry_id)
        alert = found and _alert(found[1])
        return [alert] if alert else []
    alerts = [alert for names in partitions.all for alert in await _with_id(client, names, wanted)]
    return sorted(alerts, key=lambda alert: alert.raised_at)


async def _with_id(client: Redis, names: StreamNames, wanted: str) -> list[ModerationAlert]:
    found: list[ModerationAlert] = []
    looked_through = 0
    async for _, fields in backwards(client, names.alerts):
        looked_through += 1
        if looked_through > LOOKED_THROUGH or len(found) == MAX_FOUND:
            break
        if wanted.encode() in map(fields.get, _ID_FIELDS):
            alert = _alert(fields)
            found += [alert] if alert else []
    return found[::-1]


def _alert(fields: dict[bytes, bytes]) -> ModerationAlert | None:
    """Return the alert in an entry; None if it holds none, since another program wrote it."""
    try:
        return parse_alert(fields.get(b"__data__", b"")).alert
    except NotAnAlertError:
        return None
