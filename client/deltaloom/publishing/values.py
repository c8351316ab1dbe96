"""Classify events by their value, and estimate the memory that they take while they wait."""

from __future__ import annotations

import hashlib
from enum import IntEnum
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Event = dict[str, Any]
"""An event of the Responses API."""


class Value(IntEnum):
    """Classes of events. The lowest is dropped first."""

    ANSWER = 0
    """Deltas of answers, and events that no worker reads."""
    REASONING = 1
    REFUSAL = 2
    FRAME = 3
    """Beginnings and ends: everything that is not a delta. They have a reserve of their own."""


DELTAS: Final[Mapping[str, Value]] = {
    "response.output_text.delta": Value.ANSWER,
    "response.reasoning_text.delta": Value.REASONING,
    "response.reasoning_summary_text.delta": Value.REASONING,
    "response.refusal.delta": Value.REFUSAL,
}
"""Value of each type of delta that may be merged."""

REFUSAL_DELTA: Final = "response.refusal.delta"

PLAIN: Final = frozenset(name for name, value in DELTAS.items() if value < Value.REFUSAL)
"""Deltas for which nobody waits."""

TEXT_FIELDS: Final[Mapping[str, str]] = {
    "response.output_text.done": "text",
    "response.reasoning_text.done": "text",
    "response.reasoning_summary_text.done": "text",
    "response.refusal.done": "refusal",
}
"""Field with the text, by type of closing."""

_BEGINNINGS: Final = frozenset(
    {
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_part.added",
        "response.reasoning_summary_part.added",
    }
)

COPIES: Final = frozenset(
    {
        "response.content_part.done",
        "response.reasoning_part.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
    }
)
"""Closings that repeat a text within a larger object."""

ENDS: Final = frozenset(
    {
        "response.completed",
        "response.done",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
        "response.canceled",
        "error",
        "response.error",
    }
)
"""Events that end a response."""

FRAMES: Final = _BEGINNINGS | COPIES | ENDS | TEXT_FIELDS.keys() | {"deltaloom.part.redacted"}

URGENT: Final = COPIES | ENDS | TEXT_FIELDS.keys()
"""Events that do not wait for others."""

DELTA_BYTES: Final = 600
"""Bytes of a waiting delta in addition to its text: the dictionary, its values, and its place."""

FRAGMENT_BYTES: Final = 16
"""Bytes of a merged fragment in addition to its text."""

_NODES: Final = 2_000
"""Maximum values of an event that are measured one by one; the others count as `_NODE_BYTES`."""

_NODE_BYTES: Final = 120
"""Bytes of a value that is not measured."""


def bytes_of(value: object) -> int:
    """Estimate the bytes of memory of an event and its values.

    To bound the cost, values after the first 2,000 are not measured.
    """
    total, seen, stack = DELTA_BYTES, 0, [value]
    while stack:
        each = stack.pop()
        seen += 1
        if seen > _NODES:
            return total + _NODE_BYTES * len(stack) * 4
        if isinstance(each, str | bytes):
            total += getsizeof(each)
        elif isinstance(each, dict):
            total += 64 + 100 * len(each) + _length(each)
            stack += each.values()
        elif isinstance(each, list | tuple):
            total += 56 + 8 * len(each)
            stack += each[:_NODES]
            total += _NODE_BYTES * max(0, len(each) - _NODES)
        else:
            total += 32
    return total


def _length(names: Iterable[Any]) -> int:
    """Return the characters of an object's names; 0 if one is no string, such as a number, which is short."""
    try:
        return sum(map(len, names))
    except TypeError:
        return 0


def reduced(event: Event) -> Event | None:
    """Return a closing with the checksum of its text in place of the text, or an end without its output.

    None if the event cannot be reduced.
    """
    kind = event.get("type")
    field = TEXT_FIELDS.get(kind) if isinstance(kind, str) else None
    if field is not None:
        text = event.get(field)
        if not isinstance(text, str) or not text:
            return None
        data = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
        rest = {name: value for name, value in event.items() if name in _KEPT}
        return rest | {"text_sha256": hashlib.sha256(data).hexdigest(), "text_bytes": len(data)}
    response = event.get("response")
    if kind in ENDS and isinstance(response, dict) and len(response) > 0:
        kept = {name: response[name] for name in _KEPT_OF_RESPONSE if name in response}
        return {**event, "response": kept} if kept.keys() != response.keys() else None
    return None


def has_output(event: Event) -> bool:
    """Return True if an end has a final copy, which `reduced` leaves out."""
    response = event.get("response")
    return isinstance(response, dict) and bool(response.get("output"))


_KEPT: Final = frozenset(
    {
        *("type", "sequence_number", "output_index", "content_index", "summary_index", "item_id"),
        "integrity_source",
    }
)
_KEPT_OF_RESPONSE: Final = (
    "id",
    "object",
    "status",
    "model",
    "error",
    "incomplete_details",
    "safety_identifier",
)
