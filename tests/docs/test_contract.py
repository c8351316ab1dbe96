"""Test the contract's tables against the models."""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydantic import TypeAdapter

from deltaloom import Partitions, StreamNames, limits
from deltaloom.kinds import KINDS
from deltaloom.messages import (
    PLAIN_FIELDS,
    AssembledText,
    DeadLetter,
    KnownAlertType,
    KnownDeadLetterReason,
    KnownIntegrity,
    KnownStatus,
    ModelFallback,
    ModerationAlert,
    OutputMessage,
    RefusalRate,
    UndeliveredAlert,
)
from handlers import BUILT_IN
from handlers.core.effects import CONTEXT_NAMES
from tests.docs.pages import CLIENTS, CONTRACT, quoted

if TYPE_CHECKING:
    from pydantic import BaseModel

MESSAGES: dict[str, type[BaseModel]] = {
    "AssembledText": AssembledText,
    "ModerationAlert": ModerationAlert,
    "RefusalRate": RefusalRate,
    "ModelFallback": ModelFallback,
    "Dead letters": DeadLetter,
    "Undelivered alerts": UndeliveredAlert,
}


def first_column(heading: str) -> list[str]:
    """Return the name in each row."""
    return [quoted(row[0])[0] for row in CONTRACT.table(heading)]


def described(schema: dict[str, Any]) -> str:
    """Return a field's type as the page writes it."""
    match schema:
        case {"anyOf": [known, {"type": "string"}, *rest]} if "enum" in known or "const" in known:
            # For an open type, the page lists the known values.
            return described({"anyOf": [known, *rest]} if rest else known)
        case {"anyOf": [value, {"type": "null"}]}:
            literals = value.get("enum")
            return f"{described(value)}{',' if literals else ''} or null"
        case {"type": "array", "items": {"type": item}}:
            return f"array of {item}s"
        case {"$ref": reference}:
            return str(reference).rpartition("/")[2]
        case {"enum": _} | {"const": _}:
            literals = schema.get("enum", [schema.get("const")])
            return ", ".join(f"`{literal}`" for literal in literals)
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


@pytest.mark.parametrize("heading", MESSAGES)
def test_fields_of_messages(heading: str) -> None:
    """List all fields of messages with their types, since subscribers in other languages rely on them."""
    properties = MESSAGES[heading].model_json_schema(mode="serialization")["properties"]
    written = {quoted(name)[0]: kind for name, kind, _ in CONTRACT.table(heading)}
    assert written == {name: described(schema) for name, schema in properties.items()}


def test_sample_is_a_message() -> None:
    """Show a valid sample message, since readers copy it."""
    (sample,) = [block.text for block in CONTRACT.blocks if block.language == "json"]
    message = TypeAdapter[Any](OutputMessage).validate_json(sample)
    assert json.loads(message.model_dump_json()) == json.loads(sample)


@pytest.mark.parametrize(
    ("heading", "literal"),
    [
        ("Status", KnownStatus),
        ("Integrity", KnownIntegrity),
        ("Types of alerts", KnownAlertType),
        ("Reasons", KnownDeadLetterReason),
    ],
)
def test_literals(heading: str, literal: Any) -> None:
    """Explain all values of the literals."""
    assert first_column(heading) == list(get_args(literal))


def test_kinds() -> None:
    """Describe all kinds of text as their table does."""
    written = [
        (quoted(name)[0], about, quoted(index)[0], quoted(part)[0])
        for name, about, index, part in CONTRACT.table("Kinds")
    ]
    assert written == [(kind.name, kind.about, kind.index_field, kind.part_type) for kind in KINDS.values()]


def test_events() -> None:
    """List the required and optional fields of events, since producers rely on them."""
    written = {
        quoted(kind)[0]: (set(quoted(must)), set(quoted(may)))
        for kind, must, may, _ in CONTRACT.table("Events that matter")
    }
    models = {route.event_type: route.model for handler in BUILT_IN.values() for route in handler.routes}
    assert written == {
        event_type: (
            {name for name, field in model.model_fields.items() if field.is_required()} - {"type"},
            {name for name, field in model.model_fields.items() if not field.is_required()},
        )
        for event_type, model in models.items()
    }


def test_context() -> None:
    """List the context fields and their limits."""
    assert first_column("Context") == ["response_id", *CONTEXT_NAMES]
    stated = {quoted(row[0])[0]: int(row[1].replace(",", "")) for row in CONTRACT.table("Context")}
    assert stated == {"response_id": limits.ID, **limits.CONTEXT}


def test_fields_of_an_entry() -> None:
    """List the plain fields of an entry."""
    assert first_column("Out: an entry of assembled and of alerts") == ["__data__", *PLAIN_FIELDS]


@pytest.mark.parametrize(
    ("page", "heading"),
    [(CONTRACT, "Streams and keys"), (CLIENTS, "Streams and keys")],
    ids=["contract", "clients"],
)
def test_names(page: Any, heading: str) -> None:
    """List the streams and keys."""
    names = StreamNames()
    item = re.sub(r":0$", ":<output_index>", names.item("<stream key>", 0))
    outputs = [names.assembled, names.alerts, names.deliveries, names.dead_letters, names.undelivered]
    public = [names.deltas, *outputs, item]
    assert [quoted(row[0])[0] for row in page.table(heading)] == public


def test_partitions() -> None:
    """Show correct partitions, which producers in other languages rely on."""
    rows = CONTRACT.table("Partitions")
    assert any(not quoted(row[0])[0].isascii() for row in rows)
    for response_id, size, checksum, of_4, of_16 in rows:
        (key,) = quoted(response_id)
        assert int(size) == len(key.encode())
        assert quoted(checksum) == [f"{zlib.crc32(key.encode()):08x}"]
        assert [int(of_4), int(of_16)] == [Partitions(count).of(key).partition for count in (4, 16)]
    page = CONTRACT.path.read_text("utf-8")
    for names in (Partitions(16).all[0], Partitions(16).all[15]):
        assert f"`{names.deltas}`" in page
