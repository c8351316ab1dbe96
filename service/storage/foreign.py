"""Entries that another program wrote where only deltaloom should: they are shown, and hold up nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from handlers.core.identity import EntryId
from handlers.core.outputs import time_of

if TYPE_CHECKING:
    from datetime import datetime

FOREIGN: Final = "foreign"
"""The reason that such an entry is shown with."""

WHAT_IT_IS: Final = "deltaloom did not write this entry"


def came_at(entry_id: str) -> datetime:
    """Return the time in an entry's id."""
    return time_of(EntryId.parse(entry_id).ms)
