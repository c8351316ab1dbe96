"""Raise an alert about a response that another model answered in place of one that refused.

The provider's stream shows such a refusal nowhere else: it has neither a refusal's text nor a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from deltaloom.events import ResponseFallback
from deltaloom.messages import ModelFallback, ModerationAlert
from handlers.core.effects import Fallback, ModelChange, Origin
from handlers.core.identity import digest
from handlers.core.outputs import context_fields, time_of
from handlers.core.routing import Handler, Route
from handlers.core.text import repair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.core.response import ResponseEnd

ALERT: Final = "deltaloom.response.fallback"


def on_fallback(event: ResponseFallback, origin: Origin) -> Iterator[Fallback]:
    """Record the change of the model; the end of the response raises the alert.

    Raises:
        UnattributableEventError: the response id is missing or too long.
    """
    values = (event.from_model, event.to_model, event.trigger)
    change = ModelChange(*(repair(value) if value else None for value in values))
    yield Fallback(origin.response_key(event.response_id), change)


def ended(end: ResponseEnd) -> ModerationAlert | None:
    """Return the alert about a response that another model answered; None for all other responses."""
    if end.fallback is None:
        return None
    return ModerationAlert(
        type=ALERT,
        id=digest("fallback", str(end.stream_key)),
        severity="warning",
        text="",
        response_id=end.stream_key.value,
        status=end.status,
        reason=end.reason,
        reason_class=end.reason_class,
        provider_category=end.provider_category,
        provider_explanation=end.provider_explanation,
        fallback=ModelFallback(**end.fallback._asdict()),
        raised_at=time_of(end.at_ms),
        **context_fields(end.context),
    )


handler = Handler(name="fallback", routes=(Route(ResponseFallback, on_fallback),), ended=ended)
