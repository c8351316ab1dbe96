"""Test how a response's state and the fields of stream entries are encoded and decoded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, field_serializer
from pydantic_core import PydanticSerializationError
from structlog.testing import capture_logs

from deltaloom import AssembledText, DeadLetter, ModerationAlert
from deltaloom.messages import ModelFallback, RefusalRate
from handlers.core.assembly import StoredFragment
from handlers.core.context import Register, RegisterName
from handlers.core.effects import Copy, Ending
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from service.storage.records import (
    REGISTERS,
    arrival_field,
    encode_ending,
    entry_of_alert,
    entry_of_letter,
    in_ms,
    json_of,
    open_fields,
    packed,
    register_field,
    register_value,
    registers_of,
    stamped,
    state_of,
)
from tests.packed import unpacked
from tests.strategies import Chunk, entry_ids

_Model = TypeVar("_Model", bound=BaseModel)

KEY = StreamKey("response", "resp_1")
ENTRY = EntryId(5, 1)
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def log(text: str) -> bytes:
    """Return a log with one fragment."""
    return Chunk([StoredFragment(Arrival(ENTRY, 0), 1, text)], [], None).encoded()


@given(st.lists(st.text(), max_size=40))
def test_packed_fields_are_consecutive_values(fields: list[str]) -> None:
    """Pack fields without the header of their array, however long that is."""
    assert unpacked(packed(fields)) == fields


def test_an_alerts_entry_has_its_json_and_its_plain_fields() -> None:
    """Write the JSON and plain fields for subscribers without FastStream, and omit fields that are None."""
    alert = ModerationAlert(
        type="deltaloom.refusal.opened",
        id="opened_1",
        severity="warning",
        text="No.",
        kind="refusal",
        response_id="resp_1",
        raised_at=NOW,
    )
    values = entry_of_alert(alert, "t")
    fields = dict(zip(values[::2], values[1::2], strict=True))
    assert values[0] == "__data__"
    assert ModerationAlert.model_validate_json(fields.pop("__data__")) == stamped(alert, "t")
    assert fields == {
        "type": "deltaloom.refusal.opened",
        "id": "opened_1",
        "kind": "refusal",
        "response_id": "resp_1",
    }


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\x00\x01\x1f\x7f\x80", '\b\t\n\f\r"\\\\/', "é東👋\u2028\u2029\ufeff\uffff", "<a href='x'>&amp;</a>"]
)
moments = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))]),
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 - `timezones` adds one
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
).map(lambda at: at if at.microsecond % 2 else at.replace(microsecond=at.microsecond // 1000 * 1000))
of_type: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    AwareDatetime: moments,
    tuple[str, ...]: st.lists(words, max_size=2),
}


def any_of(model: type[_Model]) -> st.SearchStrategy[_Model]:
    """Return a strategy of messages with any values; fields with a default often have that."""
    values = {}
    for name, field in model.model_fields.items():
        types = {field.annotation, *get_args(field.annotation)}
        some = next((strategy for each, strategy in of_type.items() if each in types), words)
        values[name] = some if field.is_required() else st.just(field.default) | some
    return st.fixed_dictionaries(values).map(model.model_validate)


of_type[RefusalRate] = any_of(RefusalRate)
of_type[ModelFallback] = any_of(ModelFallback)
messages = any_of(AssembledText) | any_of(ModerationAlert)


@given(messages, words)
def test_a_messages_json_is_that_of_its_model(message: AssembledText | ModerationAlert, source: str) -> None:
    """Write the very bytes that the model would write, for any text, number, time and missing value."""
    assert json_of(message, source) == stamped(message, source).model_dump_json()


def test_a_lone_surrogate_is_refused_as_by_the_model() -> None:
    """Raise the model's error for a text that was not repaired, which JSON cannot hold."""
    alert = ModerationAlert(type="x", id="1", severity="info", text="", raised_at=NOW)
    with pytest.raises(PydanticSerializationError):
        json_of(alert.model_copy(update={"text": "\ud800"}), "t")


class Louder(ModerationAlert):
    """An alert of a handler with a field of its own, written in a way of its own."""

    volume: int = 11

    @field_serializer("volume")
    def _in_words(self, volume: int) -> str:
        return f"{volume} of 10"


def test_a_handlers_own_model_writes_its_json() -> None:
    """Let a model that a handler has derived write its own fields."""
    alert = Louder(type="x", id="1", severity="info", text="", raised_at=NOW)
    assert '"volume":"11 of 10"' in json_of(alert, "t")


def test_a_dead_letters_entry_is_all_text() -> None:
    """Write all fields as text, so that readers of the stream can parse numbers and times."""
    letter = DeadLetter(
        reason="handler_error",
        error="boom",
        stream="deltas",
        entry_id="5-1",
        deliveries=3,
        failed_at=NOW,
        entry="{}",
    )
    values = entry_of_letter(letter, "t")
    assert all(type(value) is str for value in values)
    fields = dict(zip(values[::2], values[1::2], strict=True))
    assert DeadLetter.model_validate(fields) == stamped(letter, "t")
    assert fields["failed_at"] == "2026-05-04T12:00:00Z"


@given(entry_ids, entry_ids, st.text(max_size=5), st.text(max_size=5))
def test_the_earliest_register_is_the_smallest_in_byte_order(
    one: EntryId, other: EntryId, value: str, another: str
) -> None:
    """Encode registers so that byte order is entry order, since the script keeps the smaller string."""
    first, second = Register(one, value), Register(other, another)
    if one != other:
        by_bytes = register_value(first).encode() < register_value(second).encode()
        assert by_bytes == (first < second)


@pytest.mark.parametrize("digits", range(1, 20))
def test_a_longer_number_comes_after_a_shorter_one(digits: int) -> None:
    """Order numbers by value, not alphabetically: 9 before 10."""
    lower, higher = 10**digits - 1, 10**digits
    assert register_value(Register(EntryId(lower, 0), "z")) < register_value(
        Register(EntryId(higher, 0), "a")
    )
    assert register_value(Register(EntryId(1, lower), "z")) < register_value(
        Register(EntryId(1, higher), "a")
    )


@given(entry_ids, st.text(max_size=8))
def test_a_register_is_read_back(entry: EntryId, value: str) -> None:
    """Keep names, entries and values of registers, also with blanks."""
    for learned in (False, True):
        name, register = RegisterName("tenant", learned), Register(entry, value)
        field = f"ctx:{register_field(name)}"
        assert registers_of({field: register_value(register).encode(), "ctx:model": None}) == {name: register}


def test_each_register_has_a_field_of_its_own() -> None:
    """Use separate fields for learned and producer values. Otherwise one would overwrite the other."""
    assert REGISTERS["ctx:model"] == RegisterName("model", learned=False)
    assert REGISTERS["ctx:model:learned"] == RegisterName("model", learned=True)
    assert len(set(REGISTERS.values())) == len(REGISTERS)


def test_the_open_parts_are_those_that_are_not_done() -> None:
    """Return the open parts only, since only their logs are loaded."""
    fields = {"part:0:0:refusal": b"open", "part:1:0:reasoning": b"done", "end:5-1:0": b"", "version": b"1"}
    assert open_fields(fields) == ["0:0:refusal"]


@pytest.mark.parametrize("output_index", [None, 0, 3])
def test_an_ending_is_read_back(output_index: int | None) -> None:
    """Keep an ending's item and copies. Otherwise an item's end would end its response."""
    copies = (Copy("msg_1", 2, 1, "refusal", "No \ud83d."), Copy(None, 0, 0, "reasoning", ""))
    ending = Ending(KEY, output_index, "incomplete", "max_output_tokens", copies)
    at = Arrival(ENTRY, 4)
    state = state_of(KEY, {f"end:{arrival_field(at)}": encode_ending(ending)}, {})
    assert state.endings == {at: ending}


def test_a_state_is_read_with_its_logs() -> None:
    """Treat an open part without a log as finished, since another worker finished it meanwhile."""
    fields = {
        "part:0:0:refusal": b"open",
        "part:1:0:refusal": b"open",
        "part:2:0:refusal": b"done",
        "ctx:tenant": register_value(Register(ENTRY, "acme")).encode(),
        "alerted:0:0:refusal": b"1",
        "version": b"3",
    }
    state = state_of(KEY, fields, {"0:0:refusal": log("No."), "1:0:refusal": None})
    first, second, third = (PartKey(KEY, n, 0, "refusal") for n in range(3))
    assert {part: each.assembled()[0].text for part, each in state.open_parts.items()} == {first: "No."}
    assert state.finished_parts == {second: None, third: None}
    assert state.registers == {RegisterName("tenant"): Register(ENTRY, "acme")}
    assert state.stream_key == KEY


def test_a_log_that_cannot_be_read_is_set_aside() -> None:
    """Leave out and log a part with a damaged log. Otherwise it would block all texts of its response."""
    fields = {"part:0:0:refusal": b"open", "part:1:0:refusal": b"open"}
    with capture_logs() as lines:
        state = state_of(KEY, fields, {"0:0:refusal": b"?", "1:0:refusal": log("No.")})
    assert [*state.open_parts] == [PartKey(KEY, 1, 0, "refusal")]
    assert state.finished_parts == {}
    assert [(line["log_level"], line["response"], line["part"]) for line in lines] == [
        ("error", "response:resp_1", "0:0:refusal")
    ]


@pytest.mark.parametrize(("seconds", "ms"), [(1, 1000), (0.0004, 0), (0.0006, 1), (2.5, 2500)])
def test_seconds_are_whole_milliseconds(seconds: float, ms: int) -> None:
    """Round seconds to whole milliseconds, since Redis refuses fractions."""
    assert in_ms(seconds) == ms
    assert type(in_ms(seconds)) is int
