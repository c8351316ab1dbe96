"""Which ends of a response raise an alert, and what it says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

import pytest

from deltaloom.messages import KnownStatus, ModerationAlert
from deltaloom.reasons import STOPPED, KnownReasonClass
from handlers.core.effects import Context
from handlers.core.identity import StreamKey
from handlers.core.response import ResponseEnd
from handlers.stopped import ALERTS, ended, handler

if TYPE_CHECKING:
    from deltaloom.messages import Status
    from deltaloom.reasons import ReasonClass

CONTEXT = Context(tenant="acme", model="gpt-4o", safety_identifier="u-1", traceparent="00-a-b-01")
KEY = StreamKey("response", "resp_1")


def end(
    status: Status,
    reason_class: ReasonClass | None,
    key: StreamKey = KEY,
    reason: str | None = "x",
    *,
    has_refusal: bool = False,
) -> ResponseEnd:
    """Return an end for a reason of this class."""
    return ResponseEnd(
        key,
        status,
        reason,
        CONTEXT,
        1_767_323_045_000,
        reason_class,
        "category",
        "explanation",
        has_refusal=has_refusal,
    )


def test_filtered() -> None:
    """Nobody would learn that a filter cut an answer off, or whose it was."""
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
    """Otherwise a class of reasons would raise no alert, or one that says something else."""
    alert = ended(end(status, reason_class, reason="As Sent"))
    assert alert is not None
    assert (alert.type, alert.status) == (f"deltaloom.response.{name}", status)
    assert (alert.reason, alert.reason_class) == ("As Sent", reason_class)
    assert alert.id.startswith(f"{name}_")
    assert alert.severity == "warning"


@pytest.mark.parametrize("status", get_args(KnownStatus))
@pytest.mark.parametrize("reason_class", [None, *get_args(KnownReasonClass), "new"])
def test_nothing_else_raises_an_alert(status: Status, reason_class: ReasonClass | None) -> None:
    """Otherwise an overload, or a limit, would page whoever is on call for moderation."""
    stopped = reason_class in {"refusal", "safety", "policy", "guardrail", "recitation"}
    raises = stopped and status in {"incomplete", "failed"}
    assert (ended(end(status, reason_class)) is not None) == raises
    assert ((status, reason_class) in ALERTS) == raises


@pytest.mark.parametrize(("status", "reason_class"), ALERTS)
def test_response_with_a_refusal_has_that_alert_only(status: Status, reason_class: ReasonClass) -> None:
    """Otherwise whoever is on call would be told twice of one refusal."""
    assert ended(end(status, reason_class, has_refusal=True)) is None


def test_without_a_response_id_the_item_is_named() -> None:
    """Nobody could say which stream it was."""
    alert = ended(end("incomplete", "safety", StreamKey("item", "msg_1")))
    assert alert is not None
    assert (alert.response_id, alert.item_id) == (None, "msg_1")


def test_ids_are_those_of_the_response_and_the_type() -> None:
    """A subscriber that drops repeats would drop another response's alert, or keep the same one twice."""
    ids = {
        alert.id
        for key in (KEY, StreamKey("response", "resp_2"), StreamKey("item", "resp_1"))
        for status, reason_class in (("incomplete", "safety"), ("failed", "policy"), ("failed", "refusal"))
        for _ in range(2)
        if (alert := ended(end(status, reason_class, key))) is not None
    }
    assert len(ids) == 9


def test_handler_takes_no_event_and_no_text() -> None:
    """It would claim what another handler has."""
    assert (handler.routes, handler.kinds) == ((), frozenset())
    assert handler.name == "stopped"
