"""From an entry to its events, one by one: what cannot be read is set aside, its neighbours go on.

An entry holds one event or an array of events as JSON, or one event as flat fields. Flat fields are all
strings, so numbers are read from their digits. `service/pipeline/fitting.py` leaves out what is odd.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json, to_json

from deltaloom import limits
from handlers.core.effects import CONTEXT_NAMES, Context
from service.pipeline.arrays import split_array
from service.pipeline.fitting import NoFitError, fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deltaloom.messages import DeadLetterReason
    from handlers.core.routing import Route
    from service.pipeline.fitting import Fitted
    from service.ports import Entry

END_MARK = b"[DONE]"
"""What closes a stream of server-sent events; a producer that forwards every line publishes it too."""

_NESTED = ("response", "item", "part", "error")
_ENTRY_FIELDS = "publish it as the field event (JSON), as __data__, or as flat fields with a type"


class Unreadable(NamedTuple):
    """Why an entry, or one event of it, cannot be read: for the dead letter."""

    reason: DeadLetterReason
    error: str


class Slot(NamedTuple):
    """One place in an entry: what stands there, and why that is no event, if it is none."""

    value: Any
    why: Unreadable | None = None
    raw: bytes | None = None
    """Its JSON, where the array could not be read as a whole."""

    @property
    def json(self) -> bytes:
        """What stands there, as JSON."""
        return original(self.value) if self.raw is None else self.raw


class Said(NamedTuple):
    """What the producer said beside the events."""

    response_id: str | None
    context: Context


class UnreadableError(ValueError):
    """The producer wrote an entry that cannot be read; `why` says what to change."""

    def __init__(self, reason: DeadLetterReason, error: str) -> None:
        super().__init__(error)
        self.why = Unreadable(reason, error)


def said_of(entry: Entry) -> Said:
    """Return the response id and the context of an entry; leave out context values that are too long.

    Raises:
        UnreadableError: a value is not UTF-8, or the response id is too long.
    """
    response_id = _beside(entry, "response_id")
    if response_id is not None and len(response_id) > limits.ID:
        raise UnreadableError(
            "invalid_event", f"the field response_id has {len(response_id)} characters; at most {limits.ID}"
        )
    values = {name: value for name in CONTEXT_NAMES if (value := _beside(entry, name)) is not None}
    truncated = sorted(name for name, value in values.items() if len(value) > limits.CONTEXT[name])
    kept = {name: value for name, value in values.items() if name not in truncated}
    return Said(response_id, Context(**kept, truncated=tuple(truncated)))


def _beside(entry: Entry, name: str) -> str | None:
    """Return a field of the entry, else the header of that name; None if it is empty or missing."""
    raw = entry.fields.get(name.encode())
    return (entry.headers.get(name) if raw is None else _utf8(name, raw)) or None


def events_of(entry: Entry, max_event_bytes: int, max_array_length: int) -> list[Slot]:
    """An entry's events in order; `UnreadableError` if it has none that could be told apart."""
    if entry.body is None:
        return [_flat(entry, max_event_bytes)]
    return slots_of(entry.body, max_event_bytes, max_array_length)


def slots_of(body: bytes, max_event_bytes: int, max_array_length: int) -> list[Slot]:
    """The events in an entry's JSON, in order; `UnreadableError` likewise."""
    if body.strip() == END_MARK:
        return [Slot({"type": END_MARK.decode()})]
    try:
        value = from_json(body)
    except ValueError:
        raws = split_array(body)
        if raws is None:
            value = _parsed(body)
        else:
            _check_length(len(raws), max_array_length)
            return [_slot(raw, max_event_bytes) for raw in raws]
    if not isinstance(value, list):
        return [_checked(value, len(body), max_event_bytes)]
    _check_length(len(value), max_array_length)
    small = len(body) <= max_event_bytes
    return [_checked(each, 0 if small else len(original(each)), max_event_bytes) for each in value]


def _check_length(length: int, at_most: int) -> None:
    if length > at_most:
        raise UnreadableError("oversized", f"the entry's array has {length} events; at most {at_most}")


def _slot(raw: bytes, max_event_bytes: int) -> Slot:
    """Return one event of an array that could not be read as a whole."""
    try:
        return _checked(_parsed(raw), len(raw), max_event_bytes)._replace(raw=raw)
    except UnreadableError as error:
        return Slot(None, error.why, raw)


def fitted(route: Route, event: dict[str, Any], *, strict: bool) -> Fitted:
    """Return an event as its model reads it, and what was left out of it.

    Args:
        route: the event's.
        event: the event.
        strict: false for flat fields, which are all strings.

    Raises:
        UnreadableError: a field that the event must have is missing or mistyped; the error names it.
    """
    try:
        return fit(route.model, event, strict=strict)
    except NoFitError as error:
        raise UnreadableError("invalid_event", f"{route.event_type}: {error}") from None


def _checked(value: Any, size: int, max_event_bytes: int) -> Slot:
    if size > max_event_bytes:
        return Slot(value, Unreadable("oversized", f"the event has {size} bytes; at most {max_event_bytes}"))
    if not isinstance(value, dict):
        return Slot(value, Unreadable("invalid_event", f"an event is a JSON object, not {_json_name(value)}"))
    if is_error(value):
        return Slot({**value, "type": "error"})
    if not isinstance(value.get("type"), str):
        return Slot(value, Unreadable("invalid_event", "the event's type is missing, or is not a string"))
    return Slot(value)


def is_error(value: Mapping[str, Any]) -> bool:
    """Return whether an object without a type is an error: gateways send one as the end of a stream."""
    error = value.get("error")
    return not isinstance(value.get("type"), str) and isinstance(error, dict | str) and error != ""


def _flat(entry: Entry, max_event_bytes: int) -> Slot:
    if b"type" not in entry.fields and not entry.fields.get(b"error"):
        known = (name.decode(errors="replace") for name in entry.fields)
        names = ", ".join(sorted(name if name.isidentifier() else "…" for name in known)[:10])
        raise UnreadableError("invalid_event", f"no event in the entry's fields ({names}): {_ENTRY_FIELDS}")
    event: dict[str, Any] = {}
    for raw_name, raw in entry.fields.items():
        name = _utf8("name", raw_name)
        value: Any = _utf8(name, raw)
        event[name] = _parsed(raw) if name in _NESTED and value.startswith("{") else value
    return _checked(event, sum(map(len, entry.fields.values())), max_event_bytes)


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        # The fast parser refuses half a surrogate pair, which a split emoji leaves in a delta.
        try:
            return json.loads(body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UnreadableError("malformed_json", f"not UTF-8 at byte {error.start}") from None
        except json.JSONDecodeError as error:
            what = error.msg.removesuffix(" starting at")
            raise UnreadableError("malformed_json", f"not JSON at character {error.pos}: {what}") from None
        except (ValueError, RecursionError) as error:
            raise UnreadableError("malformed_json", f"JSON beyond limits: {type(error).__name__}") from None


def _utf8(name: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(
            "invalid_event", f"the field {name} is not UTF-8 at byte {error.start}"
        ) from None


def original(value: Any) -> bytes:
    """An event as JSON again: for a dead letter that holds one event of an array."""
    try:
        return to_json(value)
    except ValueError:  # half a surrogate pair
        return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def _json_name(value: Any) -> str:
    names: dict[type, str] = {str: "a string", bool: "a boolean", type(None): "null", list: "an array"}
    return names.get(type(value), "a number")
