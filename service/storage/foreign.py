"""Entries that another program wrote where only deltaloom should: they are shown, and hold up nothing."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

from handlers.core.identity import EntryId
from handlers.core.outputs import time_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

FOREIGN: Final = "foreign"
"""The reason that such an entry is shown with."""

WHAT_IT_IS: Final = "deltaloom did not write this entry"


def came_at(entry_id: str) -> datetime:
    """Return the time in an entry's id."""
    return time_of(EntryId.parse(entry_id).ms)


def as_text(fields: Mapping[bytes, bytes]) -> str:
    """Return an entry's fields as a JSON object; a value that is not UTF-8 stands as `{"base64": "…"}`."""
    return json.dumps(
        {name.decode("utf-8", "backslashreplace"): _value(value) for name, value in fields.items()},
        ensure_ascii=False,
    )


def _value(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
