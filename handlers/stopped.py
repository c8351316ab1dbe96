"""What stopped a response before its end: a content filter, or a policy. Each raises an alert of its own.

A filter cuts off an answer that had begun: `response.incomplete`, with `content_filter` as its reason. A
policy fails the request: `response.failed`, or an `error`, whose code says so. There is no text to go by,
only the code, and every provider has its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.messages import ModerationAlert
from handlers.core.identity import digest
from handlers.core.outputs import context_fields, time_of
from handlers.core.routing import Handler

if TYPE_CHECKING:
    from deltaloom.messages import AlertType
    from handlers.core.response import ResponseEnd

FILTERED = frozenset({"content_filter"})
"""Reasons of a `response.incomplete`, as the Responses API has them."""

BLOCKED = frozenset(
    {
        # OpenAI: https://platform.openai.com/docs/api-reference/responses/object, `error.code`, and what the
        # image API, the moderation of images and the safety checks of newer models answer. A prompt is
        # `invalid_prompt` when it "may violate the usage policy", not when it is malformed.
        "bio_policy",
        "content_policy_violation",
        "cyber_policy",
        "cyber_policy_violation",
        "image_content_policy_violation",
        "invalid_prompt",
        "misalignment_policy_violation",
        "moderation_blocked",
        "policy_violation",
        "safety_violation",
        # Azure OpenAI: the code, and the one inside it.
        "content_filter",
        "responsibleaipolicyviolation",
        # Gemini's reasons, which gateways pass on as codes.
        "blocklist",
        "prohibited_content",
        "safety",
        "spii",
        # Alibaba Cloud Model Studio.
        "data_inspection_failed",
        "datainspectionfailed",
    }
)
"""Codes of an error that name a policy, in lower case. Not among them: what an overload, a limit, or a broken
request answers."""


def ended(end: ResponseEnd) -> ModerationAlert | None:
    """The alert that a response's end raises, if a filter or a policy is the reason."""
    code = (end.reason or "").lower()
    if end.status == "incomplete" and code in FILTERED:
        return _alert("deltaloom.response.filtered", end)
    if end.status == "failed" and code in BLOCKED:
        return _alert("deltaloom.response.blocked", end)
    return None


def _alert(alert_type: AlertType, end: ResponseEnd) -> ModerationAlert:
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
        raised_at=time_of(end.at_ms),
        **context_fields(end.context),
    )


handler = Handler(name="stopped", routes=(), ended=ended)
