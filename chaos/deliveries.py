"""Alerts raised, held against alerts that arrived. Pure: it is told everything, and asks nobody.

An alert may arrive twice: when a relay is killed between an answer and its note of it, or the note is lost.
Then it has the same id, and whoever receives it drops it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos.verdict import part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FINISHED = "deltaloom.refusal.finished"
_OPENED = "deltaloom.refusal.opened"


class Deliveries:
    """Of one destination.

    Args:
        violate: is told what is wrong: the kind, and an example.
    """

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate
        self._raised: set[str] = set()
        self._arrived: set[str] = set()
        self._opened: set[int] = set()
        self.attempts = 0
        self.repeats = 0
        """Alerts that came again after they had been taken."""

    @property
    def arrived(self) -> int:
        """Alerts that were taken, each counted once."""
        return len(self._arrived)

    def raised(self, fields: Mapping[str, Any]) -> None:
        """An alert is on the stream."""
        self._raised.add(fields["id"])

    def attempt(self, fields: Mapping[str, Any], *, taken: bool) -> None:
        """An alert came, and was taken or not."""
        self.attempts += 1
        name, kind = fields["id"], fields["type"]
        if name in self._arrived:
            self.repeats += 1
            return
        part = hash(part_of(fields))
        if kind == _FINISHED and part not in self._opened:
            self._violate("delivery out of order", f"{name} came before its opened alert was taken")
        if taken:
            self._arrived.add(name)
            if kind == _OPENED:
                self._opened.add(part)

    def end(self) -> None:
        """Everything is done: what is missing now is lost."""
        for name in sorted(self._raised - self._arrived):
            self._violate("lost delivery", f"{name} was raised and has not arrived")
        for name in sorted(self._arrived - self._raised):
            self._violate("unknown delivery", f"{name} arrived and was not raised")
