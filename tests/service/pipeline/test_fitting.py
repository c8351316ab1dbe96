"""Test how events are fitted to their models: odd optional values are left out, and the rest is kept."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from deltaloom import events
from deltaloom.events import Event, MessageItem, OtherItem, OtherPart, RefusalPart, TextPart
from service.pipeline.fitting import NoFitError, fit
from tests.client.test_events import GOOD
from tests.service.pipeline.test_decode import json_values

Json = dict[str, Any]

DELTA = GOOD[events.RefusalDelta]
COMPLETED = GOOD[events.ResponseCompleted]
NEEDED = {"type", "delta", "kind", "output_index", "content_index", "summary_index", "part", "item"}
"""Fields that an event requires."""
UNNEEDED = [(model, name) for model, event in GOOD.items() for name in event if name not in NEEDED]


@pytest.mark.parametrize("model", GOOD)
def test_good_event_is_read_in_full(model: type[Event]) -> None:
    """Keep all values of a good event."""
    assert fit(model, GOOD[model], strict=True) == (model.model_validate(GOOD[model]), [])


@pytest.mark.parametrize(("model", "name"), UNNEEDED)
@pytest.mark.parametrize("odd", [True, 1.5, ["x"], "\ud83d", 10**400, [[{}]]], ids=repr)
def test_odd_optional_field_is_left_out(model: type[Event], name: str, odd: object) -> None:
    """Leave out an odd optional field, and keep its event."""
    without = {key: value for key, value in GOOD[model].items() if key != name}
    event, left_out = fit(model, GOOD[model] | {name: odd}, strict=True)
    if left_out:
        assert (event, left_out) == (model.model_validate(without), [name])
    else:  # valid here: a text with a lone surrogate, a numeric error code
        assert isinstance(odd, str) or name == "code"


@pytest.mark.parametrize("name", ["sequence_number", "output_index", "content_index"])
@pytest.mark.parametrize("one", [1.0, "1"])
def test_number_in_another_form_is_read(name: str, one: object) -> None:
    """Read integers written as floats or strings, as some servers write them."""
    assert fit(events.RefusalDelta, DELTA | {name: one}, strict=True) == (
        events.RefusalDelta.model_validate(DELTA | {name: 1}),
        [],
    )


@pytest.mark.parametrize(
    "odd", [1.5, "1.5", "", "x", "1e3", "٣", "-", "9" * 30, True, float("nan")], ids=repr
)
def test_non_integers_are_refused(odd: object) -> None:
    """Refuse values that are not integers. Otherwise a text would have a guessed position."""
    assert fit(events.RefusalDelta, DELTA | {"sequence_number": odd}, strict=True).event == (
        events.RefusalDelta.model_validate(DELTA | {"sequence_number": None})
    )
    with pytest.raises(NoFitError, match=r"^content_index: Input should be a valid integer"):
        fit(events.RefusalDelta, DELTA | {"content_index": odd}, strict=True)


def test_position_that_is_null_is_the_first() -> None:
    """Read a null position as 0, as servers with a single part write it."""
    event, left_out = fit(events.RefusalDelta, DELTA | {"content_index": None}, strict=True)
    assert (event, left_out) == (events.RefusalDelta.model_validate(DELTA), ["content_index"])


def test_null_is_as_good_as_missing() -> None:
    """Treat null as missing, without reporting it as left out."""
    event = {"type": "response.cancelled", "response": None}
    assert fit(events.ResponseCancelled, event, strict=True) == (
        events.ResponseCancelled(type="response.cancelled"),
        [],
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"delta": 7}, "delta: Input should be a valid string"),
        ({"delta": 7, "item_id": ""}, "delta: Input should be a valid string"),
        ({"output_index": -1}, "output_index: Input should be greater than or equal to 0"),
        ({"output_index": "-1"}, "output_index: Input should be greater than or equal to 0"),
    ],
)
def test_event_without_a_required_field_is_refused(change: Json, error: str) -> None:
    """Refuse an event without a valid required field, and name the field."""
    with pytest.raises(NoFitError) as caught:
        fit(events.RefusalDelta, DELTA | change, strict=True)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("response", "field"),
    [
        ({"id": ""}, "response.id"),
        ({"model": 5}, "response.model"),
        ({"output": {}}, "response.output"),
        ({"error": 5}, "response.error"),
        ({"error": {"message": {}}}, "response.error.message"),
        ({"error": {"category": 7}}, "response.error.category"),
        ({"incomplete_details": []}, "response.incomplete_details"),
        ({"incomplete_details": {"reason": 5}}, "response.incomplete_details.reason"),
        ("done", "response"),
    ],
)
def test_odd_field_of_a_response_costs_only_itself(response: Any, field: str) -> None:
    """Leave out an odd field of a response. Otherwise its texts would wait for the idle timeout."""
    event = COMPLETED | {"response": response}
    before = copy.deepcopy(event)
    assert fit(events.ResponseCompleted, event, strict=True).left_out == [field]
    assert event == before


def test_neighbours_in_a_copy_keep_their_positions() -> None:
    """Replace odd items and parts by placeholders. Otherwise a copy would close another part's text."""
    refusal = {"type": "refusal", "refusal": "no"}
    odd_text = {"type": "output_text", "text": 7}
    output: list[Any] = [
        None,
        {"type": "message", "id": "", "content": [None, odd_text, refusal]},
        {"type": "message", "content": "plain"},
        {"type": "reasoning", "summary": {}},
    ]
    event, left_out = fit(events.ResponseCompleted, COMPLETED | {"response": {"output": output}}, strict=True)
    assert isinstance(event, events.ResponseCompleted)
    assert event.response.output == [
        OtherItem(),
        MessageItem(
            type="message",
            content=[OtherPart(), TextPart(type="output_text"), RefusalPart(type="refusal", refusal="no")],
        ),
        MessageItem(type="message"),
        events.ReasoningItem(type="reasoning"),
    ]
    assert left_out == [
        "response.output",
        "response.output.content",
        "response.output.content.text",
        "response.output.id",
        "response.output.summary",
    ]


class _Inner(events.Copied):
    needed: str


class _Vendor(Event):
    things: list[_Inner] | None = None
    best: _Inner | None = None


def test_object_without_required_fields_is_left_out() -> None:
    """Leave out an object without its required fields, also for a vendor's model."""
    value: Json = {"sequence_number": 1, "best": {}, "things": [{"needed": "x"}, {}]}
    assert fit(_Vendor, value, strict=True) == (_Vendor(sequence_number=1), ["best", "things"])


class _Whole(Event):
    low: int = 0
    high: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def test_event_that_is_invalid_as_a_whole_is_refused() -> None:
    """Refuse an event of a vendor's model if the error is about no single field."""
    assert fit(_Whole, {"low": 1, "high": 2}, strict=True).left_out == []
    with pytest.raises(NoFitError, match="low is above high"):
        fit(_Whole, {"low": 2, "high": 1}, strict=True)


class _Place(events.Copied):
    line: int | None = None


class _Sparse(events.Copied):
    needed: str
    place: _Place | None = None


class _Held(Event):
    held: _Sparse | None = None


def test_odd_field_within_an_object_that_is_left_out_costs_no_more() -> None:
    """Leave out an object that lacks a field, and not the event, if the object has an odd value as well."""
    value: Json = {"sequence_number": 1, "held": {"place": {"line": []}}}
    assert fit(_Held, value, strict=True) == (_Held(sequence_number=1), ["held"])


class _Pair(events.Copied):
    one: str
    two: str


class _Holder(events.Copied):
    pair: _Pair | None = None
    name: str = ""


class _Nested(Event):
    held: _Holder | None = None


@pytest.mark.parametrize("pair", [{}, {"one": 1, "two": 2}, {"one": 1}], ids=repr)
def test_object_that_lacks_two_fields_costs_only_itself(pair: Json) -> None:
    """Leave out an object without its required fields, and keep the object around it."""
    event, left_out = fit(_Nested, {"held": {"name": "n", "pair": pair}}, strict=True)
    assert event == _Nested(held=_Holder(name="n"))
    assert "held.pair" in left_out


@given(st.sampled_from(list(GOOD)), st.data())
def test_any_value_is_fitted_or_refused(model: type[Event], data: st.DataObject) -> None:
    """Fit or refuse any JSON value, without another error."""
    event = dict(GOOD[model])
    for name in data.draw(st.sets(st.sampled_from(sorted({*event} - {"type"})), max_size=3)):
        event[name] = data.draw(json_values)
    with suppress(NoFitError):
        fit(model, event, strict=True)
