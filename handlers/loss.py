"""Handle producers' reports that they dropped events of a response."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom import limits
from deltaloom.events import ProducerLoss
from handlers.core.effects import Loss, Origin, UnattributableEventError
from handlers.core.identity import StreamKey
from handlers.core.routing import Handler, Route

if TYPE_CHECKING:
    from collections.abc import Iterator


def on_loss(event: ProducerLoss, origin: Origin) -> Iterator[Loss]:
    """Record a loss: no text of the response that is closed after it is `verified`.

    Raises:
        UnattributableEventError: the response id is missing or too long.
    """
    response_id = origin.response_id or event.response_id
    if response_id is None:
        raise UnattributableEventError("the event and its entry have no response_id")
    if len(response_id) > limits.ID:
        raise UnattributableEventError(f"response_id has {len(response_id)} characters; at most {limits.ID}")
    yield Loss(StreamKey("response", response_id))


handler = Handler(name="loss", routes=(Route(ProducerLoss, on_loss),))
