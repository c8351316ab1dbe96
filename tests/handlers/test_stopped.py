"""Which ends of a response raise an alert, and what it says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from deltaloom.messages import ModerationAlert
from handlers.core.effects import Context
from handlers.core.identity import StreamKey
from handlers.core.response import ResponseEnd
from handlers.stopped import BLOCKED, ended, handler

if TYPE_CHECKING:
    from deltaloom.messages import Status

CONTEXT = Context(tenant="acme", model="gpt-4o", safety_identifier="u-1", traceparent="00-a-b-01")
KEY = StreamKey("response", "resp_1")


def end(status: Status, reason: str | None, key: StreamKey = KEY) -> ResponseEnd:
    """An end."""
    return ResponseEnd(key, status, reason, CONTEXT, 1_767_323_045_000)


def test_filtered() -> None:
    """Nobody would learn that a filter cut an answer off, or whose it was."""
    assert ended(end("incomplete", "content_filter")) == ModerationAlert(
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
        raised_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


@pytest.mark.parametrize("code", [*sorted(BLOCKED), "ResponsibleAIPolicyViolation", "SAFETY"])
def test_blocked(code: str) -> None:
    """A provider's code would not be known, or not be kept as it was sent."""
    alert = ended(end("failed", code))
    assert alert is not None
    assert (alert.type, alert.status, alert.reason) == ("deltaloom.response.blocked", "failed", code)
    assert alert.id.startswith("blocked_")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("incomplete", "max_output_tokens"),
        ("incomplete", None),
        ("incomplete", "invalid_prompt"),
        ("failed", "server_error"),
        ("failed", "rate_limit_exceeded"),
        ("failed", "429"),
        ("failed", None),
        ("failed", ""),
        ("completed", None),
        ("abandoned", "idle_timeout"),
        ("completed", "content_filter"),
    ],
)
def test_nothing_to_say(status: Status, reason: str | None) -> None:
    """An overload, or a limit, would page whoever is on call for moderation."""
    assert ended(end(status, reason)) is None


def test_without_a_response_id_the_item_is_named() -> None:
    """Nobody could say which stream it was."""
    alert = ended(end("incomplete", "content_filter", StreamKey("item", "msg_1")))
    assert alert is not None
    assert (alert.response_id, alert.item_id) == (None, "msg_1")


def test_ids_are_those_of_the_response_and_the_type() -> None:
    """A subscriber that drops repeats would drop another response's alert, or keep the same one twice."""
    ids = {
        alert.id
        for key in (KEY, StreamKey("response", "resp_2"), StreamKey("item", "resp_1"))
        for status, code in (("incomplete", "content_filter"), ("failed", "cyber_policy"))
        for _ in range(2)
        if (alert := ended(end(status, code, key))) is not None  # type: ignore[arg-type]  # a tuple's str
    }
    assert len(ids) == 6


def test_codes_are_compared_in_lower_case() -> None:
    """A code written otherwise in the table would never be met."""
    assert all(code == code.lower() for code in BLOCKED)


def test_handler_takes_no_event_and_no_text() -> None:
    """It would claim what another handler has."""
    assert (handler.routes, handler.kinds) == ((), frozenset())
    assert handler.name == "stopped"
