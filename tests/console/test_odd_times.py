"""Test what the console makes of times that nobody can have meant."""

from __future__ import annotations

import json

from console.alert_rows import delivery_json
from console.live_responses import LiveResponses
from deltaloom.messages import Delivery, ModerationAlert

LATE = "9999-12-31T23:59:59+00:00"


def alert(response_id: str, raised_at: str) -> ModerationAlert:
    """Return an alert as a stream has it."""
    values = {
        "id": f"a_{response_id}",
        "type": "x",
        "text": "",
        "severity": "warning",
        "raised_at": raised_at,
    }
    return ModerationAlert.model_validate_json(json.dumps({**values, "response_id": response_id}))


def test_a_response_of_the_future_holds_up_no_other() -> None:
    """Give up what is silent, although an alert before it has a time that never comes."""
    responses = LiveResponses(idle_ms=1000)
    responses.take_alert(alert("resp_1", LATE), "deltaloom", 0)
    responses.take_alert(alert("resp_2", "1970-01-01T00:00:01+00:00"), "deltaloom", 1000)
    for now in (3000, 4001):
        responses.give_up(now)
    second = responses.get("resp_2")
    assert second is not None
    assert second.status == "abandoned"


def test_an_answer_after_the_end_of_time_is_shown() -> None:
    """Compute no date that Python does not have."""
    values = {"id": "d", "destination": "team", "outcome": "delivered", "attempts": 1, "answer": "200"}
    message = {**values, "raised_at": LATE, "latency_ms": 10**15, "entry_id": "1-0"}
    shown = delivery_json(Delivery.model_validate_json(json.dumps(message)))
    assert shown["at"] == 253402300799000 + 10**15
