"""An honest model that is suddenly refused, and a new honest event type: both must still be noticed.

The model's earlier answers are stored with ids of that time, so that no run has to wait for them.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

MODEL = "probe-model"
TYPE = "probe.type"
WINDOW = 60
"""Seconds of the workers' window of refusals. A bucket is a tenth of it."""
BASELINE = 180
RESPONSES = 20
"""The workers' minimum number of responses for a spike."""

_PAST = 60
_REFUSED = 30
_ID = "probe."
_EVERY = 0.1


def is_probe(response_id: Any) -> bool:
    """Return whether a response belongs to the probe."""
    return isinstance(response_id, str) and response_id.startswith(_ID)


class Probe:
    """The producer of the probe's entries.

    Args:
        client: client of the server.
        stream: the input.
    """

    def __init__(self, client: Redis, stream: str) -> None:
        self._client = client
        self._stream = stream
        self.entries = 0
        self.counted: dict[str, int] = {}
        """Expected counts by name."""

    async def past(self) -> None:
        """Store the model's answers from before the window. The stream must be empty."""
        first = round((time.time() - 2 * WINDOW) * 1000)
        for number in range(_PAST):
            event = {"type": "response.completed", "response": {}}
            await self._store(event, f"past-{number}", entry_id=f"{first + number}-0")

    async def present(self, ends: Callable[[], bool]) -> None:
        """Store refusals of the model for some seconds, then events of the new type until `ends()`."""
        details = {"reason": "refusal", "reason_class": "refusal"}
        for number in range(_REFUSED):
            event = {"type": "response.incomplete", "response": {"incomplete_details": details}}
            await self._store(event, f"refused-{number}")
            await asyncio.sleep(_EVERY)
        name = f"type:{TYPE}"
        while not ends():
            await self._store({"type": TYPE}, "type")
            self.counted[name] = self.counted.get(name, 0) + 1
            await asyncio.sleep(_EVERY)

    async def _store(self, event: dict[str, Any], name: str, *, entry_id: str = "*") -> None:
        fields: dict[Any, Any] = {"event": json.dumps(event), "response_id": f"{_ID}{name}", "model": MODEL}
        await self._client.xadd(self._stream, fields, id=entry_id)
        self.entries += 1
