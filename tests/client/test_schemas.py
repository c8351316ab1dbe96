"""Test the JSON Schemas in the library's wheel, which readers in other languages rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft7Validator

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
from tests.client import asyncapi
from tests.client.schemas import EVENTS, FOLDER, schemas, validator
from tests.client.test_events import GOOD
from tests.client.test_messages import ALERT, AT, EARLIER_ALERT, SPIKE, TEXT

DEMO = Path(__file__).parents[2] / "demo" / "streams"
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
    """Ship the schemas of the current models. `make schemas` updates them."""
    assert {path.name: path.read_bytes() for path in FOLDER.glob("*.json")} == {
        name: text.encode() for name, text in schemas().items()
    }


def test_the_asyncapi_document_is_that_of_the_schemas() -> None:
    """Ship the document of the current schemas. `make schemas` updates it."""
    assert asyncapi.FILE.read_text("utf-8") == asyncapi.document()


def test_the_examples_of_the_asyncapi_document_are_valid() -> None:
    """Show only examples that meet their schemas, which AsyncAPI's own parser does not check."""
    document = json.loads(asyncapi.document())
    messages = [
        message for channel in document["channels"].values() for message in channel["messages"].values()
    ]
    checked = 0
    for message in messages:
        for example in message.get("examples", ()):
            for name in example:
                schema = {**message[name], "components": document["components"]}
                Draft7Validator(schema).validate(example[name])
                checked += 1
    assert checked == 6


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
    """Accept messages of this and of earlier versions."""
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
def test_open_values_list_known_ones_and_accept_others(name: str, field: str, known: Any) -> None:
    """List the known values, and accept others."""
    schema = validator(name)
    message = json.loads((TEXT if name == "AssembledText" else ALERT).model_dump_json())
    schema.validate({**message, field: "of-next-year"})
    described: Any = schema.schema
    alternatives = described["properties"][field]["anyOf"]
    assert alternatives[0] == {"enum": list(get_args(known)), "type": "string"}
    assert {"type": "string"} in alternatives


def test_message_with_other_fields_is_valid() -> None:
    """Accept an additional field and a missing optional one."""
    message = json.loads(TEXT.model_dump_json(exclude_defaults=True))
    validator("AssembledText").validate({**message, "field_of_next_year": 1})


@pytest.mark.parametrize("field", ["id", "text", "status", "kind", "output_index"])
def test_missing_field_is_found(field: str) -> None:
    """Refuse a message without a required field."""
    message = json.loads(TEXT.model_dump_json())
    del message[field]
    assert not validator("AssembledText").is_valid(message)


def test_events_of_every_handler_are_described() -> None:
    """Describe the events of all handlers."""
    read = {route.model for handler in BUILT_IN.values() for route in handler.routes}
    assert read <= set(EVENTS)


@pytest.mark.parametrize("event", GOOD.values(), ids=lambda event: str(event["type"]))
def test_events_are_valid(event: dict[str, Any]) -> None:
    """Accept good events."""
    validator("Event").validate(event)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda path: path.stem)
def test_streamed_events_are_valid(stream: Path) -> None:
    """Accept whole recorded streams, with copies, parts and items of other types."""
    schema = validator("Event")
    types = {value for model in EVENTS for value in get_args(model.model_fields["type"].annotation)}
    events = [json.loads(line) for line in stream.read_text("utf-8").splitlines() if line.strip()]
    of_known_types = [event for event in events if event.get("type") in types]
    assert of_known_types
    for event in of_known_types:
        schema.validate(event)


@pytest.mark.parametrize("field", ["output_index", "content_index", "delta"])
def test_event_without_a_field_is_found(field: str) -> None:
    """Refuse an event without a required field."""
    delta = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "No."}
    assert validator("Event").is_valid(delta)
    assert not validator("Event").is_valid({name: value for name, value in delta.items() if name != field})
