"""Entry ids with times far from now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hostile.entry import USED, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator

_HOUR_MS = 3_600_000


def future_ids(mutator: Mutator) -> Iterator[Entry]:
    """Send explicit ids an hour or more ahead; all later entries get such ids, honest ones included."""
    latest = round(time.time() * 1000)
    while True:
        latest += _HOUR_MS + mutator.rng.randrange(1000)
        event = mutator.pick(mutator.delta(), mutator.done(), {"type": "response.completed", "response": {}})
        yield entry(event, response_id=mutator.id(), ends=USED)._replace(id=f"{latest}-0")
