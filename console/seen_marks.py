"""The alerts that somebody has marked as seen."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from console.console_errors import ConsoleError

if TYPE_CHECKING:
    from console.looks import Looks

_MARK: Final = "console seen "
"""Beginning of a look that marks an alert; the alert's id follows."""

_KEPT: Final = 10_000
_READ_WITHIN: Final = 5.0
"""Maximum seconds for which a start waits for an archive."""


class SeenMarks:
    """Marks in memory, and in the record of looks, where a console that starts again finds them.

    Args:
        looks: the record.
    """

    def __init__(self, looks: Looks) -> None:
        self._marks: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._looks = looks

    async def read_back(self) -> None:
        """Read the marks of former runs. While the archive is away they are unknown: its log line says so."""
        try:
            async with asyncio.timeout(_READ_WITHIN):
                former = await self._looks.of_former_runs()
        except (ConsoleError, TimeoutError):
            return
        for look in former:
            if look.what.startswith(_MARK):
                self.set(look.what.removeprefix(_MARK), look.who, round(look.at.timestamp() * 1000))

    def get(self, alert_id: str) -> dict[str, Any] | None:
        """Return who has seen an alert first, and when; None if nobody has."""
        return self._marks.get(alert_id)

    def set(self, alert_id: str, by: str, at: int) -> dict[str, Any]:
        """Mark an alert, unless it is marked; return the mark."""
        mark = self._marks.setdefault(alert_id, {"by": by, "at": at})
        while len(self._marks) > _KEPT:
            self._marks.popitem(last=False)
        return mark

    @staticmethod
    def look_of(alert_id: str) -> str:
        """Return the look that marks an alert."""
        return f"{_MARK}{alert_id}"
