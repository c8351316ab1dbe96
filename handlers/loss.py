"""Handle producers' reports that they dropped events of a response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.events import ProducerLoss
from handlers.core.effects import Loss, Origin
from handlers.core.routing import Handler, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESS = "process"
"""Scope of a report about several responses that are not named."""


def on_loss(event: ProducerLoss, origin: Origin) -> Iterator[Loss]:
    """Record a loss: no text of the response that is closed after it is `verified`.

    A report about responses that are not named is only counted. One without a number stands for one event.

    Raises:
        UnattributableEventError: the response id is missing or too long.
    """
    is_named = not (origin.response_id is None and event.response_id is None and event.scope == PROCESS)
    dropped = 1 if event.dropped is None else event.dropped
    yield Loss(origin.response_key(event.response_id) if is_named else None, dropped)


handler = Handler(name="loss", routes=(Route(ProducerLoss, on_loss),))
