"""Encode JSON, also of strings that no UTF-8 can encode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from datetime import datetime

_encode = msgspec.json.Encoder().encode


def json_bytes(value: Any) -> bytes:
    """Return JSON without line breaks. An unpaired surrogate, as in some ids, is written as an escape."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def ms_of(at: datetime | None) -> int | None:
    """Return a time in milliseconds since the epoch; None for None."""
    return None if at is None else round(at.timestamp() * 1000)
