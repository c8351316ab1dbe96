"""Generate the library's AsyncAPI document of all streams, from the JSON Schemas and the streams' names.

FastStream can generate such a document of a worker. It would miss most of this one: the worker's subscriber
gets whole batches, scripts write the outputs, and dead letters are entries without a body.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deltaloom import AssembledText, ModerationAlert, StreamNames
from deltaloom.limits import CONTEXT, ID
from deltaloom.messages import PLAIN_FIELDS
from release.__main__ import version
from tests.client.schemas import FOLDER, schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = FOLDER.parent / "asyncapi.json"

_ABOUT = """\
deltaloom reads streaming events of language models from a Redis Stream. It writes finished texts and \
moderation alerts to others.

A message is one entry of a stream. `x-entry-field` names the field of the entry that holds the payload as \
JSON; the other fields are the headers. Without `x-entry-field`, the payload's properties are the fields of \
the entry, as strings.

The operations are deltaloom's: it receives the entries that producers add, and sends those that subscribers \
read. Values and fields that a reader does not know may be added without notice: ignore such fields, and \
accept any string where a schema lists the known ones.
"""

_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_PART = {"output_index": 0, "content_index": 0}
_EVENTS = [
    {"type": "response.refusal.delta", "sequence_number": 1, "delta": "I'm sorry,", **_PART},
    {"type": "response.refusal.delta", "sequence_number": 2, "delta": " but no.", **_PART},
    {"type": "response.refusal.done", "sequence_number": 3, "refusal": "I'm sorry, but no.", **_PART},
]
_TEXT = AssembledText(
    id="text_0a69d55cd1a04de8b1a1f3ee9d07ac5f",
    response_id="resp_42",
    kind="refusal",
    output_index=0,
    content_index=0,
    text="I'm sorry, but no.",
    status="completed",
    integrity="verified",
    integrity_source="provider",
    delta_count=2,
    duplicate_count=0,
    first_sequence_number=1,
    last_sequence_number=2,
    started_at=_AT,
    finished_at=_AT,
)
_ALERT = ModerationAlert(
    type="deltaloom.refusal.opened",
    id="opened_0a69d55cd1a04de8b1a1f3ee9d07ac5f",
    response_id="resp_42",
    severity="warning",
    kind="refusal",
    output_index=0,
    content_index=0,
    text="I'm sorry,",
    raised_at=_AT,
)


def document() -> str:
    """Return the text of the document."""
    channels = {stream: _channel(stream, **message) for stream, message in _MESSAGES.items()}
    parts = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "deltaloom",
            "version": version(),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"redis": {"host": "localhost:6379", "protocol": "redis"}},
        "channels": channels,
        "operations": {
            f"{'receive' if name == 'deltas' else 'send'}_{name}": {
                "action": "receive" if name == "deltas" else "send",
                "channel": {"$ref": f"#/channels/{name}"},
            }
            for name in channels
        },
        "components": {"schemas": dict(_components())},
    }
    return f"{json.dumps(parts, indent=2)}\n"


def _channel(stream: str, *, summary: str, **message: Any) -> dict[str, Any]:
    """Return the channel of a stream, with its only message."""
    return {
        "address": getattr(StreamNames("{prefix}"), stream),
        "summary": summary,
        "parameters": {
            "prefix": {
                "default": "deltaloom",
                "description": (
                    "DELTALOOM_PREFIX of the workers. With several partitions, the number of the partition "
                    "follows in braces: `deltaloom:{0}`, …"
                ),
            }
        },
        "messages": {message["name"]: message},
    }


def _headers(*fields: str, **limits: int) -> dict[str, Any]:
    """Return the schema of the fields next to the payload, some with a maximum length in characters."""
    properties = {
        **{field: {"type": "string"} for field in fields},
        **{field: {"type": "string", "maxLength": limit} for field, limit in limits.items()},
    }
    return {"type": "object", "properties": properties}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _output(name: str, *examples: AssembledText | ModerationAlert) -> dict[str, Any]:
    """Return a message in `__data__`."""
    return {
        "name": name,
        "x-entry-field": "__data__",
        "headers": _headers(*PLAIN_FIELDS),
        "payload": _ref(name),
        **(
            {"examples": [{"payload": each.model_dump(mode="json")} for each in examples]} if examples else {}
        ),
    }


_MESSAGES: dict[str, dict[str, Any]] = {
    "deltas": {
        "summary": "Input: streaming events, one or an array in each entry.",
        "name": "Events",
        "x-entry-field": "event",
        "headers": _headers(response_id=ID, **CONTEXT),
        "payload": {"anyOf": [_ref("Event"), {"type": "array", "items": _ref("Event")}]},
        "examples": [
            {"headers": {"response_id": "resp_42", "tenant": "acme"}, "payload": _EVENTS[0]},
            {"headers": {"response_id": "resp_42"}, "payload": _EVENTS[1:]},
        ],
    },
    "assembled": {"summary": "Output: one entry for each finished text.", **_output("AssembledText", _TEXT)},
    "alerts": {"summary": "Output: moderation alerts.", **_output("ModerationAlert", _ALERT)},
    "deliveries": {
        "summary": "Output: one entry for each end of an alert at a destination.",
        **_output("Delivery"),
    },
    "dead_letters": {
        "summary": "Entries and events that could not be processed, with the reason.",
        "name": "DeadLetter",
        "payload": _ref("DeadLetter"),
    },
    "undelivered": {
        "summary": "Alerts that a destination did not confirm, with the reason.",
        "name": "UndeliveredAlert",
        "payload": _ref("UndeliveredAlert"),
    },
}
"""Message and summary of each stream, by the attribute of `StreamNames` that names it."""


def _components() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schemas of all files and their definitions, with references to each other."""
    for text in schemas().values():
        schema = json.loads(text.replace('"#/$defs/', '"#/components/schemas/'))
        del schema["$schema"]
        yield from schema.pop("$defs", {}).items()
        yield schema["title"], schema


if __name__ == "__main__":
    FILE.write_text(document(), "utf-8")
