"""Alerts raised, held against alerts that arrived. Pure: it is told everything, and asks nobody.

An alert may arrive twice: when a relay is killed between an answer and its note of it, or the note is lost.
Then it has the same id, and whoever receives it drops it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from chaos.verdict import part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FINISHED = "deltaloom.refusal.finished"
_OPENED = "deltaloom.refusal.opened"


class Deliveries:
    """Of a destination that gets every alert by itself.

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


class Grouped:
    """Of a destination that gets similar alerts as a digest, which says how many it has, and not which.

    So they are counted, by what a digest counts them as. What was on its way when a relay ended, and had been
    taken, may be in the digest of the next one too: too many is no violation.

    Args:
        violate: is told what is wrong: the kind, and an example.
    """

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate
        self._raised: Counter[str] = Counter()
        self._arrived: Counter[str] = Counter()
        self._seen: set[str] = set()
        self._ended: set[int] = set()
        """Parts whose end arrived by itself."""
        self.digests = 0
        self.in_digests = 0
        """Alerts that arrived so."""

    def raised(self, fields: Mapping[str, Any]) -> None:
        """An alert is on the stream."""
        self._raised[_counted_as(fields)] += 1

    def attempt(self, fields: Mapping[str, Any], *, taken: bool) -> None:
        """A message came, and was taken or not."""
        name, digest = fields["delivery"]["id"], fields["delivery"]["digest"]
        if not taken or name in self._seen:
            return
        self._seen.add(name)
        if digest is not None:
            counts = dict(digest["counts"])
            if sum(counts.values()) != digest["count"]:
                self._violate("unknown delivery", f"{name} counts {counts}, and says {digest['count']}")
            self._arrived.update(counts)
            self.digests += 1
            self.in_digests += digest["count"]
            return
        self._arrived[_counted_as(fields)] += 1
        if fields["type"] == _FINISHED:
            self._ended.add(hash(part_of(fields)))
        elif fields["type"] == _OPENED and hash(part_of(fields)) in self._ended:
            self._violate("delivery out of order", f"{name} came after its finished alert")

    def end(self) -> None:
        """Everything is done: what is missing now is lost."""
        for what, count in (self._raised - self._arrived).items():
            self._violate("lost delivery", f"{count} of {self._raised[what]} {what}, grouped")
        for what in sorted(self._arrived.keys() - self._raised.keys()):
            self._violate("unknown delivery", f"{what} arrived grouped and was not raised")


def _counted_as(fields: Mapping[str, Any]) -> str:
    """As a digest has it."""
    names = (fields["type"].removeprefix("deltaloom."), fields["model"] or fields["tenant"])
    return " · ".join(name for name in names if name)
