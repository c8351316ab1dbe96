"""Raise alerts about responses that were refused without a text, or stopped by a filter, policy or guardrail.

The class of the reason decides (`deltaloom.reasons`), since each provider has its own reasons. A response
with a text that counts as refused has the alerts of that text, and gets none from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.messages import ModerationAlert
from deltaloom.reasons import REFUSED, STOPPED
from handlers.core.identity import digest
from handlers.core.outputs import context_fields, time_of
from handlers.core.routing import Handler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaloom.messages import AlertType, Status
    from deltaloom.reasons import ReasonClass
    from handlers.core.response import ResponseEnd

_STOPPED_BY_STATUS: Mapping[Status, AlertType] = {
    "incomplete": "deltaloom.response.filtered",
    "failed": "deltaloom.response.blocked",
}

ALERTS: Mapping[tuple[Status, ReasonClass], AlertType] = {
    **{
        (status, refused): "deltaloom.response.refused"
        for status in _STOPPED_BY_STATUS
        for refused in sorted(REFUSED)
    },
    **{
        (status, stopped): alert_type
        for status, alert_type in _STOPPED_BY_STATUS.items()
        for stopped in sorted(STOPPED)
    },
}
"""Alert type by the status of a response and the class of its reason."""


def ended(end: ResponseEnd) -> ModerationAlert | None:
    """Return the alert that a response's end raises; None if it raises none."""
    alert_type = ALERTS.get((end.status, end.reason_class or "unknown"))
    if alert_type is None or end.refused_in_text:
        return None
    key = end.stream_key
    return ModerationAlert(
        type=alert_type,
        id=digest(alert_type.rpartition(".")[2], str(key)),
        severity="warning",
        text="",
        response_id=key.value if key.by == "response" else None,
        item_id=None if key.by == "response" else key.value,
        status=end.status,
        reason=end.reason,
        reason_class=end.reason_class,
        provider_category=end.provider_category,
        provider_explanation=end.provider_explanation,
        raised_at=time_of(end.at_ms),
        **context_fields(end.context),
    )


handler = Handler(name="stopped", routes=(), ended=ended)
