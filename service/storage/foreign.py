"""Foreign entries: those that another program wrote to a stream that only deltaloom should write to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from handlers.core.identity import EntryId
from handlers.core.outputs import time_of

if TYPE_CHECKING:
    from datetime import datetime

FOREIGN: Final = "foreign"
"""The reason with which a foreign entry is listed, as a dead letter or an undelivered alert."""

WHAT_IT_IS: Final = "deltaloom did not write this entry"


def came_at(entry_id: str) -> datetime:
    """Return the UTC time that is the first half of an entry's id, at most 9999-12-31."""
    return time_of(EntryId.parse(entry_id).ms)
