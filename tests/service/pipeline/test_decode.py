"""Test the decoding of entries: the three shapes of the contract, and any other content."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from faststream.redis.parser import BinaryMessageFormatV1
from hypothesis import given
from hypothesis import strategies as st

from deltaloom import limits
from deltaloom.events import RefusalDelta
from handlers import BUILT_IN
from handlers.core.effects import CONTEXT_NAMES, ContextValues
from handlers.core.routing import Route, RoutingTable
from service.bus.envelope import open_entry
from service.pipeline.decode import (
    ProducerContext,
    Slot,
    UnreadableError,
    events_of,
    fitted,
    producer_context_of,
)

if TYPE_CHECKING:
    from service.ports.storage import Entry

MAX = 1024
TABLE = RoutingTable(BUILT_IN.values())
REFUSAL = TABLE.routes["response.refusal.delta"]
EVENT: dict[str, Any] = {
    "type": "response.refusal.delta",
    "delta": "I'm",
    "item_id": "msg_1",
    "output_index": 0,
    "content_index": 0,
    "sequence_number": 1,
}
JSON = json.dumps(EVENT).encode()


def entry(**fields: bytes) -> Entry:
    """Return an entry with these fields."""
    return open_entry(b"1-0", {name.encode(): value for name, value in fields.items()})


def enveloped(message: Any, headers: dict[str, Any] | None = None) -> bytes:
    """Return the field that FastStream's `broker.publish(message, stream=…, headers=…)` writes."""
    encoding = BinaryMessageFormatV1.encode(
        message=message, reply_to=None, headers=headers, correlation_id="c-1"
    )
    return asyncio.run(encoding)


def slots_of(entry: Entry, max_event_bytes: int = MAX, max_array_length: int = 1000) -> list[Slot]:
    """Return the slots of an entry: one for each event."""
    return list(events_of(entry, max_event_bytes, max_array_length))


def whole_reason(entry: Entry, max_event_bytes: int = MAX) -> tuple[str, str]:
    """Return the reason and the error of an entry that cannot be read as a whole."""
    with pytest.raises(UnreadableError) as caught:
        slots_of(entry, max_event_bytes)
    assert str(caught.value) == caught.value.why.error
    return caught.value.why


def reasons(entry: Entry, max_event_bytes: int = MAX) -> list[str | None]:
    """Return for each slot None, or its reason and error."""
    slots = slots_of(entry, max_event_bytes)
    return [slot.why and f"{slot.why.reason}: {slot.why.error}" for slot in slots]


# ----------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    "fields",
    [
        {"event": JSON},
        {"event": b" \n" + JSON + b"\r\n"},
        {"event": b"[" + JSON + b"]"},
        {"__data__": JSON},
        {"__data__": b"[" + JSON + b"]"},
        {"__data__": enveloped(EVENT)},
        {"__data__": enveloped([EVENT])},
        {"__data__": enveloped(JSON)},
        {"event": JSON, "__data__": b"something else"},
    ],
    ids=[
        "event",
        "space",
        "array",
        "data",
        "data array",
        "envelope",
        "envelope array",
        "bytes",
        "event first",
    ],
)
def test_json_shapes(fields: dict[str, bytes]) -> None:
    """Read all JSON shapes of the contract."""
    read = entry(**fields)
    (slot,) = slots_of(read)
    assert (slot.value, slot.why) == (EVENT, None)
    assert fitted(REFUSAL, slot.value, strict=read.body is not None).event == RefusalDelta.model_validate(
        EVENT
    )


def test_flat_fields() -> None:
    """Read flat fields, where numbers are strings, as redis-cli sends them."""
    read = entry(**{name: str(value).encode() for name, value in EVENT.items()})
    (slot,) = slots_of(read)
    assert slot.why is None
    assert fitted(REFUSAL, slot.value, strict=read.body is not None).event == RefusalDelta.model_validate(
        EVENT
    )


def test_flat_fields_with_a_nested_object() -> None:
    """Parse JSON objects in flat fields, so that redis-cli can send the end of a response."""
    response = json.dumps({"id": "resp_1", "output": [{"type": "message", "content": []}]})
    read = entry(type=b"response.completed", response=response.encode(), response_id=b"resp_1")
    (slot,) = slots_of(read)
    assert slot.value["response"]["id"] == "resp_1"
    fitted(TABLE.routes["response.completed"], slot.value, strict=read.body is not None)


def test_array_keeps_its_order() -> None:
    """Keep the order of an array. Otherwise the deltas of a coalescing producer would be mixed up."""
    body = json.dumps([EVENT | {"sequence_number": number} for number in range(5)]).encode()
    assert [slot.value["sequence_number"] for slot in slots_of(entry(event=body))] == list(range(5))


def test_raw_json_with_a_key_data_is_no_envelope() -> None:
    """Read an event with a key `data`, which FastStream's own reader would take for its old envelope."""
    body = json.dumps(EVENT | {"data": "x", "headers": {}}).encode()
    assert slots_of(entry(__data__=body))[0].value == EVENT | {"data": "x", "headers": {}}


@pytest.mark.parametrize("rest", [b"", b"\x00", b"garbage", b"\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff"])
def test_broken_envelope_is_malformed(rest: bytes) -> None:
    """Make a dead letter of a truncated envelope. Otherwise it would stop the worker."""
    reason, _ = whole_reason(entry(__data__=BinaryMessageFormatV1.IDENTITY_HEADER + rest))
    assert reason == "malformed_json"


def test_envelope_with_a_header_beyond_ascii() -> None:
    """Read headers beyond ASCII. Otherwise events of a tenant with an umlaut would be dead letters."""
    read = entry(__data__=enveloped(EVENT, {"tenant": "Größe", "response_id": "resp_1"}))
    assert [slot.value for slot in slots_of(read)] == [EVENT]
    assert producer_context_of(read) == ProducerContext("resp_1", ContextValues(tenant="Größe"))


@pytest.mark.parametrize("field", ["event", "__data__"])
def test_end_mark_of_a_stream_is_an_event_to_count(field: str) -> None:
    """Count `[DONE]`. Otherwise a producer that forwards all lines would get a dead letter per response."""
    assert [slot.value for slot in slots_of(entry(**{field: b" [DONE]\n"}))] == [{"type": "[DONE]"}]


# ---------------------------------------------------------------------------------------------------- context


def test_context_in_fields() -> None:
    """Read the response id and the context from fields."""
    read = entry(
        event=JSON,
        response_id=b"resp_1",
        tenant="Größe".encode(),
        model=b"m",
        safety_identifier=b"u",
        traceparent=b"00-a-b-01",
    )
    assert producer_context_of(read) == ProducerContext(
        "resp_1", ContextValues("Größe", "m", "u", "00-a-b-01")
    )


def test_context_in_headers() -> None:
    """Read the response id and the context from FastStream's headers."""
    headers = {"response_id": "resp_1", "tenant": "acme", "other": "x"}
    assert producer_context_of(entry(__data__=enveloped(EVENT, headers))) == ProducerContext(
        "resp_1", ContextValues(tenant="acme")
    )


def test_field_comes_before_header() -> None:
    """Prefer fields to headers, so that a proxy can override the producer."""
    read = entry(__data__=enveloped(EVENT, {"tenant": "header"}), tenant=b"field")
    assert producer_context_of(read).context.tenant == "field"


def test_empty_context_is_missing() -> None:
    """Treat an empty field as missing. Otherwise an empty `response_id` would join unrelated texts."""
    assert producer_context_of(entry(event=JSON)) == ProducerContext(None, ContextValues())
    assert producer_context_of(entry(event=JSON, response_id=b"", tenant=b"")) == ProducerContext(
        None, ContextValues()
    )


@pytest.mark.parametrize(("character", "size"), [("x", 1), ("é", 2), ("😀", 4), ("\x01", 6)])
def test_context_has_a_limit_of_bytes(character: str, size: int) -> None:
    """Limit the context's bytes. Otherwise each text and alert of a large array would repeat 25 kB of it."""
    values = {name: character * most for name, most in limits.CONTEXT.items()}
    result = producer_context_of(
        entry(event=JSON, **{name: value.encode() for name, value in values.items()})
    )
    kept = {name: value for name, value in result.context.pairs() if name in values}
    assert sum(size * len(value) for value in kept.values()) <= limits.CONTEXT_BYTES
    assert {name: values[name] for name in kept} == kept
    assert set(result.context.truncated) == values.keys() - kept.keys()
    left_out = [size * len(values[name]) for name in result.context.truncated]
    assert (left_out == []) is (size == 1)
    assert min(left_out, default=size) + sum(size * len(each) for each in kept.values()) > (
        limits.CONTEXT_BYTES if left_out else 0
    )


def test_a_response_id_that_is_no_text_is_refused() -> None:
    """Refuse a response id that is not UTF-8, since it cannot be part of a key."""
    with pytest.raises(UnreadableError) as caught:
        producer_context_of(entry(event=JSON, response_id=b"\xffx"))
    assert caught.value.why == ("invalid_event", "the field response_id is not UTF-8 at byte 0")


@pytest.mark.parametrize("name", CONTEXT_NAMES)
def test_a_context_value_that_is_no_text_is_left_out(name: str) -> None:
    """Leave out a value that is not UTF-8. Otherwise a tenant's wrong encoding would lose a refusal."""
    others = {other: b"x" for other in CONTEXT_NAMES if other != name}
    result = producer_context_of(entry(event=JSON, response_id=b"r", **{name: b"\xffx"}, **others))
    assert result.response_id == "r"
    kept = {other: value for other, value in result.context.pairs() if other in CONTEXT_NAMES}
    assert kept == dict.fromkeys(others, "x")
    assert result.context.truncated == (name,)


def test_a_flat_event_does_without_a_context_value_that_is_no_text() -> None:
    """Leave it out of flat fields as well.

    Otherwise the shape of an entry would decide whether it is lost.
    """
    flat = entry(type=b"response.completed", tenant=b"\xff", sequence_number=b"1")
    (slot,) = events_of(flat, 1000, 10)
    assert slot == Slot({"type": "response.completed", "sequence_number": "1"})


def test_response_id_that_is_too_long_is_refused() -> None:
    """Refuse a longer response id, counted in characters."""
    longest = "é" * limits.ID
    assert producer_context_of(entry(event=JSON, response_id=longest.encode())).response_id == longest
    with pytest.raises(UnreadableError) as caught:
        producer_context_of(entry(event=JSON, response_id=longest.encode() + b"x"))
    assert caught.value.why == ("invalid_event", "the field response_id has 1025 characters; at most 1024")


@pytest.mark.parametrize("name", CONTEXT_NAMES)
def test_context_that_is_too_long_is_left_out(name: str) -> None:
    """Leave out a longer value, and keep its event."""
    longest = "é" * limits.CONTEXT[name]
    other = "model" if name == "tenant" else "tenant"
    kept = producer_context_of(entry(event=JSON, **{name: longest.encode()})).context
    assert (getattr(kept, name), kept.truncated) == (longest, ())
    left_out = ContextValues(truncated=(name,), model="acme" if name == "tenant" else None)
    if name != "tenant":
        left_out = left_out._replace(tenant="acme")
    assert producer_context_of(
        entry(event=JSON, **{name: longest.encode() + b"x", other: b"acme"})
    ) == ProducerContext(None, left_out)


def test_every_context_field_has_a_limit() -> None:
    """Define a limit for each context field. Otherwise a new field would be unlimited or unreadable."""
    assert tuple(limits.CONTEXT) == CONTEXT_NAMES


def test_names_that_are_left_out_are_sorted() -> None:
    """Sort the names. Otherwise equal contexts could compare unequal."""
    fields = dict.fromkeys(("tenant", "dialect", "model"), b"x" * 2000)
    assert producer_context_of(entry(event=JSON, **fields)).context.truncated == (
        "dialect",
        "model",
        "tenant",
    )


# -------------------------------------------------------------------------------------------- invalid entries


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "not JSON at character 0"),
        (b"{", "not JSON at character 1"),
        (b'{"type": "x"', "not JSON at character 12"),
        (JSON + b"}", f"not JSON at character {len(JSON)}"),
        (JSON + JSON, f"not JSON at character {len(JSON)}"),
        (b"data: " + JSON, "not JSON at character 0"),
        (b"{'type': 'x'}", "not JSON at character 1"),
        (b'{"type": "a\nb"}', "not JSON at character 11"),
        (b'{"type": "\\x"}', "not JSON at character 10"),
        (b"\xef\xbb\xbf" + JSON, "not JSON at character 0"),
        (JSON.decode().encode("utf-16"), "not UTF-8 at byte 0"),
        (JSON.decode().encode("utf-16-be"), "not JSON at character 0"),
        ('{"type": "é"}'.encode("latin-1"), "not UTF-8 at byte 10"),
        (b'{"type": "\xed\xa0\xbd"}', "not UTF-8 at byte 10"),
        (b'{"type": "x", "n": ' + b"9" * 5000 + b"}", "JSON beyond limits: ValueError"),
        (b"[" * 100_000, "JSON beyond limits: RecursionError"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "JSON beyond limits: RecursionError"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_broken_json(body: bytes, error: str) -> None:
    """Report the position of the fault without quoting the body."""
    reason, result = whole_reason(entry(event=body), max_event_bytes=10_000_000)
    assert reason == "malformed_json"
    assert result.startswith(error)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"1", "an event is a JSON object, not a number"),
        (b"1.5", "an event is a JSON object, not a number"),
        (b"NaN", "an event is a JSON object, not a number"),
        (b"true", "an event is a JSON object, not a boolean"),
        (b"null", "an event is a JSON object, not null"),
        (b'"text"', "an event is a JSON object, not a string"),
        (b"[[]]", "an event is a JSON object, not an array"),
        (b"{}", "the event's type is missing, or is not a string"),
        (b'{"type": null}', "the event's type is missing, or is not a string"),
        (b'{"type": 7}', "the event's type is missing, or is not a string"),
    ],
)
def test_json_that_is_no_event(value: bytes, error: str) -> None:
    """Make a dead letter of JSON that is not an event."""
    assert reasons(entry(event=value)) == [f"invalid_event: {error}"]


@pytest.mark.parametrize("error", [{"code": "x"}, {}, "boom"])
@pytest.mark.parametrize("odd", [{}, {"type": None}, {"type": 7}])
def test_error_without_a_type_is_an_error(error: Any, odd: dict[str, Any]) -> None:
    """Read an error without a type. Otherwise its response would stay open until the idle timeout."""
    event = {**odd, "error": error}
    assert slots_of(entry(event=json.dumps(event).encode())) == [Slot({"type": "error", "error": error})]
    assert (
        slots_of(entry(event=json.dumps([event, event]).encode()))
        == [Slot({"type": "error", "error": error})] * 2
    )


def test_flat_error_without_a_type_is_an_error() -> None:
    """Read the same error from flat fields."""
    assert slots_of(entry(error=b"boom", response_id=b"r"))[0].value["type"] == "error"
    assert slots_of(entry(error=b'{"code": "x"}'))[0].value == {"type": "error", "error": {"code": "x"}}


@pytest.mark.parametrize("error", [None, "", 7, []])
def test_object_without_a_type_and_an_error_is_no_event(error: Any) -> None:
    """Refuse an empty or mistyped error. Otherwise any object with that key would end a response."""
    assert reasons(entry(event=json.dumps({"error": error}).encode())) != [None]


def test_neighbours_in_an_array_go_on() -> None:
    """Read the good neighbours of bad events in an array."""
    body = b'[1, {"type": "a"}, {}, {"type": "b"}]'
    slots = slots_of(entry(event=body))
    assert [slot.why is None for slot in slots] == [False, True, False, True]


def test_half_of_a_surrogate_pair_is_read() -> None:
    """Read lone surrogates. Otherwise an emoji that is split between deltas would be lost."""
    read = entry(event=json.dumps(EVENT | {"delta": "a\ud83d"}).encode())
    event = fitted(REFUSAL, slots_of(read)[0].value, strict=read.body is not None).event
    assert isinstance(event, RefusalDelta)
    assert event.delta == "a\ud83d"


def test_the_last_of_repeated_keys_counts() -> None:
    """Use the last of repeated keys with either parser."""
    for body in (b'{"type": "a", "type": "b"}', b'{"type": "a", "type": "b", "x": "\\ud83d"}'):
        assert slots_of(entry(event=body))[0].value["type"] == "b"


def test_deep_nesting_in_ignored_fields_does_no_harm() -> None:
    """Accept deep nesting in ignored fields.

    Otherwise an event that is only counted would stop the worker.
    """
    for depth in (100, 300, 500):
        body = b'{"type": "x", "a": ' + b"[" * depth + b"]" * depth + b"}"
        assert reasons(entry(event=body)) == [None]


@pytest.mark.parametrize("array", [False, True])
def test_oversized_event(array: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """Refuse an event beyond the limit, and keep its neighbours."""
    large = json.dumps(EVENT | {"delta": "x" * MAX}, separators=(",", ":")).encode()
    error = f"oversized: the event has {len(large)} bytes; at most {MAX}"
    if array:
        assert reasons(entry(event=b"[" + JSON + b"," + large + b"," + JSON + b"]")) == [None, error, None]
    else:
        assert reasons(entry(event=large)) == [error]


def test_limit_is_for_each_event_of_an_array() -> None:
    """Apply the limit to each event, not to the whole array."""
    body = b"[" + b",".join([JSON] * 20) + b"]"
    assert len(body) > MAX
    assert reasons(entry(event=body)) == [None] * 20


def test_event_of_just_the_limit_is_taken() -> None:
    """Accept an event of exactly the maximum size."""
    assert reasons(entry(event=JSON), len(JSON)) == [None]
    assert reasons(entry(event=JSON), len(JSON) - 1) != [None]


def test_array_beyond_its_length() -> None:
    """Refuse an array with too many events. Otherwise one entry could delay all that follow."""
    body = b"[" + b",".join([JSON] * 4) + b"]"
    assert reasons(entry(event=body)) == [None] * 4
    with pytest.raises(UnreadableError) as caught:
        slots_of(entry(event=body), max_array_length=3)
    assert caught.value.why == ("oversized", "the entry's array has more than 3 events")


def test_array_of_exactly_its_limit_is_taken() -> None:
    """Accept an array of exactly the maximum length."""
    body = b"[" + b",".join([JSON] * 3) + b"]"
    assert [slot.why for slot in slots_of(entry(event=body), max_array_length=3)] == [None] * 3


def test_oversized_flat_event() -> None:
    """Apply the limit to flat fields. Otherwise they would bypass it."""
    (reason,) = reasons(entry(type=b"response.refusal.delta", delta=b"x" * MAX))
    assert reason == f"oversized: the event has {MAX + 22} bytes; at most {MAX}"


def test_flat_fields_without_a_type() -> None:
    """List the entry's fields and the remedy, since a field's name may be mistyped."""
    reason, error = whole_reason(entry(evnet=JSON, tenant=b"acme"))
    assert reason == "invalid_event"
    assert error == (
        "no event in the entry's fields (evnet, tenant): "
        "publish it as the field event (JSON), as __data__, or as flat fields with a type"
    )


def test_flat_field_that_is_not_utf_8() -> None:
    """Make a dead letter of a flat field that is not UTF-8."""
    assert whole_reason(entry(type=b"x", delta="é".encode("latin-1"))) == (
        "invalid_event",
        "the field delta is not UTF-8 at byte 0",
    )


def test_flat_field_with_broken_json() -> None:
    """Make a dead letter of a flat field with broken JSON."""
    assert whole_reason(entry(type=b"error", error=b"{"))[0] == "malformed_json"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"output_index": "x"}, "output_index: Input should be a valid integer"),
        ({"output_index": 1.5}, "output_index: Input should be a valid integer"),
        ({"content_index": True}, "content_index: Input should be a valid integer"),
        ({"content_index": -1}, "content_index: Input should be greater than or equal to 0"),
        ({"delta": None}, "delta: Input should be a valid string"),
        ({"delta": 7}, "delta: Input should be a valid string"),
    ],
)
def test_field_that_an_effect_needs_is_read_strictly(change: dict[str, Any], where: str) -> None:
    """Refuse a mistyped required field, and name it in the error."""
    read = entry(event=json.dumps(EVENT | change).encode())
    with pytest.raises(UnreadableError) as caught:
        fitted(REFUSAL, slots_of(read)[0].value, strict=read.body is not None)
    assert caught.value.why == ("invalid_event", f"response.refusal.delta: {where}")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e400", b"9" * 4000])
def test_numbers_beyond_reason(number: bytes) -> None:
    """Leave out an optional number that no integer field can hold, and keep the text."""
    read = entry(event=JSON.replace(b'"sequence_number": 1', b'"sequence_number": ' + number))
    event, left_out = fitted(REFUSAL, slots_of(read, 10_000)[0].value, strict=read.body is not None)
    assert (event.sequence_number, left_out) == (None, ["sequence_number"])


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        pytest.param(
            b'{"type": "x", "a": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
            "JSON beyond limits: RecursionError",
            marks=pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 parses this depth"),
        ),
        (b'{"type": "x", "n": ' + b"9" * 5000 + b"}", "JSON beyond limits: ValueError"),
        (b"{'type': 'x'}", "not JSON at character 1: Expecting property name enclosed in double quotes"),
        (b'{"type": "\xff"}', "not UTF-8 at byte 10"),
        (b"", "not JSON at character 0: Expecting value"),
    ],
    ids=["nested", "number", "quotes", "bytes", "nothing"],
)
def test_event_that_no_parser_takes_costs_only_itself(broken: bytes, error: str) -> None:
    """Keep the neighbours of an event that no parser accepts."""
    read = entry(event=b"[" + JSON + b", " + broken + b" ," + JSON + b"]")
    slots = events_of(read, 100_000, 1000)
    assert [slot.value for slot in slots] == [EVENT, None, EVENT]
    assert [slot.why for slot in slots] == [None, ("malformed_json", error), None]
    assert slots.raws[1] == broken
    with pytest.raises(UnreadableError, match="more than 2 events"):
        slots_of(read, 10_000, 2)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(json_values, max_size=4), st.sampled_from([None, 1]))
def test_each_event_of_an_array_is_kept_as_it_was_written(values: list[Any], indent: int | None) -> None:
    """Keep the bytes of each event of an array, since dead letters quote them."""
    body = json.dumps(values, indent=indent).encode()
    slots = events_of(entry(event=body), 1_000_000, 1000)
    assert [repr(json.loads(raw)) for raw in slots.raws] == [repr(value) for value in values]
    assert all(raw in body for raw in slots.raws)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_stop_the_reader(body: bytes, other: bytes) -> None:
    """Turn any bytes into events or dead letters. Otherwise an entry could stop the worker."""
    for fields in ({"event": body}, {"__data__": body}, {"type": body, "delta": other}):
        try:
            producer_context_of(entry(**fields))
            slots = slots_of(entry(**fields))
        except UnreadableError as error:
            reasons = {error.why.reason}
        else:
            reasons = {slot.why.reason for slot in slots if slot.why is not None}
            assert all(slot.why is not None or isinstance(slot.value["type"], str) for slot in slots)
        assert reasons <= {"malformed_json", "invalid_event"}


def test_fitted_names_the_type_it_was_read_as() -> None:
    """Begin the error with the event's type, so that a producer can find the event in its array."""
    route = Route(RefusalDelta, lambda _event, _origin: ())
    with pytest.raises(UnreadableError, match=r"^response\.refusal\.delta: delta: Field required$"):
        fitted(route, {name: value for name, value in EVENT.items() if name != "delta"}, strict=True)
