"""Turn the events and errors of SDKs into the messages that providers send."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Message = dict[str, Any]

_DEPTH: Final = 32
"""Maximum depth of an event; deeper objects and lists become None."""

_VALUES: Final = 200_000
"""Maximum values of an event. One that contains itself twice has billions within the maximum depth."""
_WRAPPERS: Final = {"raw_response_event": "data", "chunk": "chunk"}
"""Field with the provider's event, by the event's type in the Agents SDK or `chat.completions.stream`."""

_ADDED: Final = frozenset({"run_item_stream_event", "agent_updated_stream_event"})
"""Types of events that the Agents SDK adds to those of the provider."""

_SNAPSHOTS: Final = {"snapshot", "parsed_snapshot"}
"""Fields in which SDKs repeat the whole text with each event."""


def message_of(event: Any) -> Message | None:
    """Return the provider's message in an event of an SDK; None if there is none.

    Args:
        event: a dict, a pydantic model, a dataclass, or an object with `to_dict`.
    """
    event_type = event.get("type") if isinstance(event, dict) else getattr(event, "type", None)
    if isinstance(event_type, str):
        if event_type in _ADDED:
            return None
        if (field := _WRAPPERS.get(event_type)) is not None:
            inner = event.get(field) if isinstance(event, dict) else getattr(event, field, None)
            event = event if inner is None else inner
    elif event_type is None and _is_model(inner := getattr(event, "data", None)):  # Mistral's events
        event = inner
    value = _plain(event)
    return value if isinstance(value, dict) else None


def error_of(error: BaseException | None) -> Message | None:
    """Return the provider's error in an exception of an SDK, as a message; None if it has none.

    The SDKs of OpenAI, Anthropic and Mistral have it in `body`, that of Google in `details`, botocore in
    `response`.
    """
    if error is None:
        return None
    for name in ("body", "details", "response"):
        found = getattr(error, name, None)
        if isinstance(found, str) and name == "body":
            found = _parsed(found)
        if isinstance(found, dict) and (own := _own_error(_plain(found))):
            return {"type": "error", "error": own}
    return None


def _own_error(body: Message) -> Message | None:
    """Return the error in a body; None if it has none, such as an answer that an SDK could not parse."""
    for name in ("error", "Error"):  # botocore writes it with capitals
        if isinstance(own := body.get(name), dict):
            return {key.lower(): value for key, value in own.items()} if name == "Error" else own
    return body if {"code", "message"} & body.keys() else None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_model(value: Any) -> bool:
    return callable(getattr(type(value), "model_dump", None))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: objects as dicts, bytes in Base64.

    Raises:
        ValueError: it has more than 200,000 values.
    """
    return _plain_within(value, itertools.count(), 0)


def _plain_within(value: Any, seen: Iterator[int], depth: int) -> Any:
    if next(seen) == _VALUES:
        raise ValueError(f"an event has more than {_VALUES} values")
    inner = partial(_plain_within, seen=seen, depth=depth + 1)
    plain: Any = None
    if isinstance(value, str | int | float):
        plain = value
    elif depth > _DEPTH:
        pass
    elif isinstance(value, dict):
        plain = {str(name): inner(each) for name, each in value.items()}
    elif isinstance(value, list | tuple):
        plain = [inner(each) for each in value]
    elif isinstance(value, bytes | bytearray):
        plain = base64.b64encode(value).decode()
    elif _is_model(value):
        plain = value.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude=_SNAPSHOTS, warnings=False
        )
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {each.name: inner(getattr(value, each.name)) for each in dataclasses.fields(value)}
    elif callable(to_dict := getattr(value, "to_dict", None)):
        plain = inner(to_dict())
    return plain
