"""The JSON Schemas in the library's wheel: a reader in another language has nothing else to go by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from deltaloom.messages import (
    DeadLetter,
    KnownAlertSeverity,
    KnownAlertType,
    KnownIntegrity,
    KnownKind,
    KnownStatus,
    UndeliveredAlert,
)
from handlers import BUILT_IN
from tests.client.schemas import EVENTS, FOLDER, schemas, validator
from tests.client.test_events import GOOD
from tests.client.test_messages import ALERT, AT, EARLIER_ALERT, SPIKE, TEXT

DEMO = Path(__file__).parents[2] / "service" / "demo" / "streams"
STREAMS = sorted(set(DEMO.glob("*.jsonl")) - {DEMO / "post-office.jsonl"})  # that one is broken on purpose

LETTER = DeadLetter(
    reason="oversized",
    error="the event has 2,097,152 bytes",
    stream="deltaloom:deltas",
    entry_id="1-0",
    deliveries=1,
    failed_at=AT,
    entry="{}",
)
UNDELIVERED = UndeliveredAlert(
    destination="on-call",
    reason="expired",
    answer="503",
    attempts=9,
    failed_at=AT,
    entry_id="1-0",
    alert=ALERT.model_dump_json(),
)


def test_files_are_those_of_the_models() -> None:
    """A reader would be written to a contract that is no more. `make schemas` writes them anew."""
    assert {path.name: path.read_bytes() for path in FOLDER.glob("*.json")} == {
        name: text.encode() for name, text in schemas().items()
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AssembledText", TEXT.model_dump_json()),
        ("ModerationAlert", ALERT.model_dump_json()),
        ("ModerationAlert", SPIKE.model_dump_json()),
        ("ModerationAlert", EARLIER_ALERT),
        ("DeadLetter", LETTER.model_dump_json()),
        ("UndeliveredAlert", UNDELIVERED.model_dump_json()),
    ],
    ids=["text", "alert", "spike", "alert of v0.1.0", "dead letter", "undelivered"],
)
def test_messages_are_valid(name: str, message: str) -> None:
    """A reader that validates would refuse what a worker of this or an earlier version writes."""
    validator(name).validate(json.loads(message))


@pytest.mark.parametrize(
    ("name", "field", "known"),
    [
        ("AssembledText", "kind", KnownKind),
        ("AssembledText", "status", KnownStatus),
        ("AssembledText", "integrity", KnownIntegrity),
        ("ModerationAlert", "type", KnownAlertType),
        ("ModerationAlert", "severity", KnownAlertSeverity),
    ],
)
def test_open_values_name_the_known_ones_and_take_others(name: str, field: str, known: Any) -> None:
    """A reader would refuse next year's value, or not learn which values there are today."""
    schema = validator(name)
    message = json.loads((TEXT if name == "AssembledText" else ALERT).model_dump_json())
    schema.validate({**message, field: "of-next-year"})
    described: Any = schema.schema
    alternatives = described["properties"][field]["anyOf"]
    assert alternatives[0] == {"enum": list(get_args(known)), "type": "string"}
    assert {"type": "string"} in alternatives


def test_message_with_other_fields_is_valid() -> None:
    """A reader would refuse a version that has a field more, or an optional one less."""
    message = json.loads(TEXT.model_dump_json(exclude_defaults=True))
    validator("AssembledText").validate({**message, "field_of_next_year": 1})


@pytest.mark.parametrize("field", ["id", "text", "status", "kind", "output_index"])
def test_missing_field_is_found(field: str) -> None:
    """A schema that takes anything would help nobody."""
    message = json.loads(TEXT.model_dump_json())
    del message[field]
    assert not validator("AssembledText").is_valid(message)


def test_events_of_every_handler_are_described() -> None:
    """A producer would not learn of an event that the worker reads."""
    read = {route.model for handler in BUILT_IN.values() for route in handler.routes}
    assert read <= set(EVENTS)


@pytest.mark.parametrize("event", GOOD.values(), ids=lambda event: str(event["type"]))
def test_events_are_valid(event: dict[str, Any]) -> None:
    """A producer that validates would hold back what the worker takes."""
    validator("Event").validate(event)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda path: path.stem)
def test_streamed_events_are_valid(stream: Path) -> None:
    """A whole stream has copies with parts and items of other types, which a schema may refuse."""
    schema = validator("Event")
    types = {value for model in EVENTS for value in get_args(model.model_fields["type"].annotation)}
    events = [json.loads(line) for line in stream.read_text("utf-8").splitlines() if line.strip()]
    of_known_types = [event for event in events if event.get("type") in types]
    assert of_known_types
    for event in of_known_types:
        schema.validate(event)


@pytest.mark.parametrize("field", ["output_index", "content_index", "delta"])
def test_event_without_a_field_is_found(field: str) -> None:
    """A producer's mistake would show only as a dead letter."""
    delta = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "No."}
    assert validator("Event").is_valid(delta)
    assert not validator("Event").is_valid({name: value for name, value in delta.items() if name != field})
