"""Dead letters: what could not be handled, why, and the original to replay."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic wants it of there before Python 3.12

from deltaloom.messages import DeadLetter
from handlers.core.effects import CONTEXT_NAMES
from handlers.core.outputs import time_of
from service.visible import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.pipeline.decode import Slot, Unreadable
    from service.ports import Entry

_BODIES = (b"event", b"__data__")


def dead_letter(
    entry: Entry, why: Unreadable, *, stream: str, now_ms: int, only: Slot | None = None
) -> DeadLetter:
    """The dead letter of an entry, or only of what stands at one place of its array."""
    fields = entry.fields if only is None else _with(entry, only.json)
    return DeadLetter(
        reason=why.reason,
        error=visible(why.error),  # names in it are the producer's
        stream=stream,
        entry_id=str(entry.id),
        deliveries=entry.deliveries,
        failed_at=time_of(now_ms),
        entry=json.dumps({_text(name): as_json(value) for name, value in fields.items()}),
    )


def _with(entry: Entry, event: bytes) -> Mapping[bytes, bytes]:
    """The entry with one event in place of its array, so that a replay brings no neighbour back."""
    fields = {name: value for name, value in entry.fields.items() if name not in _BODIES}
    for name in ("response_id", *CONTEXT_NAMES):
        if name in entry.headers:
            fields.setdefault(name.encode(), entry.headers[name].encode())
    return {b"event": event, **fields}


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def as_json(value: bytes) -> str | dict[str, str]:
    """A field's value as JSON can hold it: text, or base64 where it is not UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


class _Binary(TypedDict):
    base64: str


_Value = str | _Binary
_FIELDS = TypeAdapter(dict[str, _Value], config=ConfigDict(strict=True))


def fields_of(entry: str) -> dict[str, bytes]:
    """A dead letter's `entry` as the fields to write again; `ValueError` if it is no such thing."""
    return {
        name: base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value.encode()
        for name, value in _FIELDS.validate_python(json.loads(entry)).items()
    }
