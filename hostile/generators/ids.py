"""Entry ids that are no time of today."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hostile.entry import USED, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator

_HOUR_MS = 3_600_000


def future_ids(mutator: Mutator) -> Iterator[Entry]:
    """Explicit ids an hour and more ahead; every later entry gets such an id, also the honest ones."""
    latest = round(time.time() * 1000)
    while True:
        latest += _HOUR_MS + mutator.rng.randrange(1000)
        event = mutator.pick(mutator.delta(), mutator.done(), {"type": "response.completed", "response": {}})
        yield entry(event, response_id=mutator.id(), ends=USED)._replace(id=f"{latest}-0")
