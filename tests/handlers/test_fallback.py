"""Test the alert about a response that another model answered in place of one that refused."""

from __future__ import annotations

import pytest

from deltaloom.events import ResponseFallback
from handlers.core.effects import (
    ContextValues,
    Ending,
    Fallback,
    ModelChange,
    Note,
    Origin,
    UnattributableEventError,
)
from handlers.core.identity import Arrival, EntryId, StreamKey
from handlers.core.response import ResponseEnd, resolve
from handlers.core.state import LowWater, ResponseState
from handlers.fallback import ended, handler, on_fallback

AT = Arrival(EntryId(1, 0), 0)
KEY = StreamKey("response", "resp_1")
END = ResponseEnd(KEY, "completed", None, ContextValues(model="b", tenant="acme"), 7)


def fallen_back(of_entry: str | None, **fields: str | None) -> list[Fallback]:
    """Return the effects of a fallback in an entry with the response id `of_entry`."""
    event = ResponseFallback.model_validate({"type": "deltaloom.response.fallback", **fields})
    return list(on_fallback(event, Origin(AT, of_entry)))


def test_fallback_is_that_of_a_response() -> None:
    """Assign the change to the response of its entry or, without one, of its event."""
    change = ModelChange("a", "b", "refusal")
    names = change._asdict()
    assert fallen_back("resp_1", **names) == [Fallback(KEY, change)]
    assert fallen_back(None, response_id="resp_1", **names) == [Fallback(KEY, change)]
    with pytest.raises(UnattributableEventError, match="no response_id"):
        fallen_back(None, **names)


def test_missing_and_empty_names_are_none_and_half_pairs_are_repaired() -> None:
    """Keep an event without names, and replace what JSON in UTF-8 cannot hold."""
    assert fallen_back("resp_1", from_model="", trigger="x\ud800") == [
        Fallback(KEY, ModelChange(None, None, "x\ufffd"))
    ]


def test_only_a_response_with_a_fallback_raises_an_alert() -> None:
    """Raise one alert with models, trigger, status and context; its id depends on the response alone."""
    assert ended(END) is None
    alert = ended(END._replace(fallback=ModelChange("a", "b", "refusal")))
    assert alert is not None
    assert (alert.type, alert.severity, alert.text) == ("deltaloom.response.fallback", "warning", "")
    assert alert.fallback is not None
    assert alert.fallback.model_dump() == {"from_model": "a", "to_model": "b", "trigger": "refusal"}
    assert (alert.response_id, alert.status, alert.tenant, alert.model) == (
        "resp_1",
        "completed",
        "acme",
        "b",
    )
    other = ended(END._replace(fallback=ModelChange(), status="failed", reason="x"))
    assert other is not None
    assert (other.id, other.status, other.reason) == (alert.id, "failed", "x")


def test_the_first_fallback_up_to_the_end_counts() -> None:
    """Ignore later reports and those after the end, so that the alert does not depend on batches."""

    def at(ms: int) -> Arrival:
        return Arrival(EntryId(ms, 0), 0)

    def fallback_of(*notes: tuple[int, str]) -> ModelChange | None:
        found = {at(ms): Note(fallback=ModelChange(name)) for ms, name in notes}
        state = ResponseState(KEY, endings={at(5): Ending(KEY, None, "completed")}, notes=found)
        (end,) = resolve(state, LowWater(EntryId(9, 0))).ends
        return end.fallback

    assert fallback_of((6, "late")) is None
    assert fallback_of((3, "second"), (2, "first"), (6, "late")) == ModelChange("first")


def test_handler_takes_fallbacks_only() -> None:
    """Handle fallbacks only."""
    assert [route.event_type for route in handler.routes] == ["deltaloom.response.fallback"]
    assert handler.kinds == frozenset()
