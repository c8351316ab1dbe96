"""Dead letters as JSON values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from console.json_bodies import ms_of

if TYPE_CHECKING:
    from console.text_policy import TextPolicy
    from service.storage.letter_store import StoredLetter

_LINE: Final = 4000
"""Maximum characters of an entry that are shown."""


def letter_json(stored: StoredLetter, policy: TextPolicy) -> dict[str, Any]:
    """Return a dead letter as JSON values; its line has the words of the entry."""
    letter = stored.letter
    return {
        "id": stored.id,
        "reason": letter.reason,
        "error": letter.error,
        "stream": letter.stream,
        "entry_id": letter.entry_id,
        "response_id": response_of(letter.entry),
        "deliveries": letter.deliveries,
        "failed_at": ms_of(letter.failed_at),
        "line": policy.beginning_of(letter.entry, _LINE),
        "cut": len(letter.entry) > _LINE or letter.entry_bytes is not None,
    }


def response_of(entry: str) -> str | None:
    """Return the response that the fields of an entry name; None without one."""
    try:
        fields = json.loads(entry)
    except (ValueError, RecursionError):
        return None
    name = fields.get("response_id") if isinstance(fields, dict) else None
    return name if isinstance(name, str) and name else None
