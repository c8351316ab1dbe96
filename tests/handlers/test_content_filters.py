"""Test which ends of a response raise an alert, and its content."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

import pytest

from deltaloom.messages import KnownStatus, ModerationAlert
from deltaloom.reasons import STOPPED, KnownReasonClass
from handlers.content_filters import ALERTS, ended, handler
from handlers.core.effects import ContextValues
from handlers.core.identity import StreamKey
from handlers.core.response import ResponseEnd

if TYPE_CHECKING:
    from deltaloom.messages import Status
    from deltaloom.reasons import ReasonClass

CONTEXT = ContextValues(tenant="acme", model="gpt-4o", safety_identifier="u-1", traceparent="00-a-b-01")
KEY = StreamKey("response", "resp_1")


def end(
    status: Status,
    reason_class: ReasonClass | None,
    key: StreamKey = KEY,
    reason: str | None = "x",
    *,
    refused_in_text: bool = False,
) -> ResponseEnd:
    """Return an end with a reason of this class."""
    return ResponseEnd(
        key,
        status,
        reason,
        CONTEXT,
        1_767_323_045_000,
        reason_class,
        "category",
        "explanation",
        refused_in_text=refused_in_text,
    )


def test_filtered() -> None:
    """Fill the alert of a filtered response."""
    assert ended(end("incomplete", "safety", reason="content_filter")) == ModerationAlert(
        type="deltaloom.response.filtered",
        id="filtered_04562571e8e5068501a089da295a3b69",
        severity="warning",
        text="",
        response_id="resp_1",
        tenant="acme",
        model="gpt-4o",
        safety_identifier="u-1",
        traceparent="00-a-b-01",
        status="incomplete",
        reason="content_filter",
        reason_class="safety",
        provider_category="category",
        provider_explanation="explanation",
        raised_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("status", "reason_class", "name"),
    [
        *(("incomplete", stopped, "filtered") for stopped in sorted(STOPPED)),
        *(("failed", stopped, "blocked") for stopped in sorted(STOPPED)),
        ("incomplete", "refusal", "refused"),
        ("failed", "refusal", "refused"),
    ],
)
def test_type_is_that_of_status_and_class(status: Status, reason_class: ReasonClass, name: str) -> None:
    """Choose the alert's type by status and class."""
    alert = ended(end(status, reason_class, reason="As Sent"))
    assert alert is not None
    assert (alert.type, alert.status) == (f"deltaloom.response.{name}", status)
    assert (alert.reason, alert.reason_class) == ("As Sent", reason_class)
    assert alert.id.startswith(f"{name}_")
    assert alert.severity == "warning"


@pytest.mark.parametrize("status", get_args(KnownStatus))
@pytest.mark.parametrize("reason_class", [None, *get_args(KnownReasonClass), "new"])
def test_nothing_else_raises_an_alert(status: Status, reason_class: ReasonClass | None) -> None:
    """Raise no alert for other ends. Otherwise an overload would page the moderators."""
    stopped = reason_class in {"refusal", "safety", "policy", "guardrail", "recitation"}
    raises = stopped and status in {"incomplete", "failed"}
    assert (ended(end(status, reason_class)) is not None) == raises
    assert ((status, reason_class) in ALERTS) == raises


@pytest.mark.parametrize(("status", "reason_class"), ALERTS)
def test_response_with_a_refusal_has_that_alert_only(status: Status, reason_class: ReasonClass) -> None:
    """Raise no alert for a response with a refusal, which has its own alerts."""
    assert ended(end(status, reason_class, refused_in_text=True)) is None


def test_without_a_response_id_the_item_is_named() -> None:
    """Name the item if there is no response id."""
    alert = ended(end("incomplete", "safety", StreamKey("item", "msg_1")))
    assert alert is not None
    assert (alert.response_id, alert.item_id) == (None, "msg_1")


def test_ids_are_those_of_the_response_and_the_type() -> None:
    """Derive the alert's id from the response and the type, so that a subscriber can drop repeats."""
    ids = {
        alert.id
        for key in (KEY, StreamKey("response", "resp_2"), StreamKey("item", "resp_1"))
        for status, reason_class in (("incomplete", "safety"), ("failed", "policy"), ("failed", "refusal"))
        for _ in range(2)
        if (alert := ended(end(status, reason_class, key))) is not None
    }
    assert len(ids) == 9


def test_handler_takes_no_event_and_no_text() -> None:
    """Claim no events and no kinds."""
    assert (handler.routes, handler.kinds) == ((), frozenset())
    assert handler.name == "stopped"
