"""Comparison of delivered alerts with raised ones. Pure: callers report each event.

An alert may arrive twice, if a relay is killed between an answer and its acknowledgement, or the
acknowledgement is lost. It then has the same id, so that receivers can drop it.
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
    """Deliveries to a destination that gets each alert separately.

    Args:
        violate: called for each violation with its kind and an example.
    """

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate
        self._raised: set[str] = set()
        self._arrived: set[str] = set()
        self._opened: set[int] = set()
        self.attempts = 0
        self.repeats = 0
        """Number of alerts that came again after they had been accepted."""

    @property
    def arrived(self) -> int:
        """Return the number of accepted alerts, without repeats."""
        return len(self._arrived)

    def raised(self, fields: Mapping[str, Any]) -> None:
        """Note that an alert is on the stream."""
        self._raised.add(fields["id"])

    def attempt(self, fields: Mapping[str, Any], *, taken: bool) -> None:
        """Note an attempt to deliver an alert, and whether it was accepted."""
        self.attempts += 1
        name, kind = fields["id"], fields["type"]
        if name in self._arrived:
            self.repeats += 1
            return
        part = hash(part_of(fields))
        if kind == _FINISHED and part not in self._opened:
            self._violate("delivery out of order", f"{name} came before its opened alert was accepted")
        if taken:
            self._arrived.add(name)
            if kind == _OPENED:
                self._opened.add(part)

    def end(self) -> None:
        """Report missing alerts as lost, when all deliveries have ended."""
        for name in sorted(self._raised - self._arrived):
            self._violate("lost delivery", f"{name} was raised and has not arrived")
        for name in sorted(self._arrived - self._raised):
            self._violate("unknown delivery", f"{name} arrived and was not raised")


class Grouped:
    """Deliveries to a destination that gets similar alerts as a digest, which has counts but no ids.

    So alerts are counted by the names that a digest counts. An alert that was accepted just when a relay
    ended may be in the digest of the next relay too: a count that is too high is not a violation.

    Args:
        violate: called for each violation with its kind and an example.
    """

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate
        self._raised: Counter[str] = Counter()
        self._arrived: Counter[str] = Counter()
        self._seen: set[str] = set()
        self._ended: set[int] = set()
        """Hashes of the parts with a separately delivered alert `finished`."""
        self.digests = 0
        self.in_digests = 0
        """Number of alerts delivered in digests."""

    def raised(self, fields: Mapping[str, Any]) -> None:
        """Note that an alert is on the stream."""
        self._raised[_counted_as(fields)] += 1

    def attempt(self, fields: Mapping[str, Any], *, taken: bool) -> None:
        """Note an attempt to deliver a message, and whether it was accepted."""
        name, digest = fields["delivery"]["id"], fields["delivery"]["digest"]
        if not taken or name in self._seen:
            return
        self._seen.add(name)
        if digest is not None:
            counts = dict(digest["counts"])
            if sum(counts.values()) != digest["count"]:
                self._violate(
                    "unknown delivery", f"{name} has counts {counts}, but the total {digest['count']}"
                )
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
        """Report missing alerts as lost, when all deliveries have ended."""
        for what, count in (self._raised - self._arrived).items():
            self._violate("lost delivery", f"{count} of {self._raised[what]} {what}, grouped")
        for what in sorted(self._arrived.keys() - self._raised.keys()):
            self._violate("unknown delivery", f"{what} arrived grouped and was not raised")


def _counted_as(fields: Mapping[str, Any]) -> str:
    """Return the name under which a digest counts an alert."""
    names = (fields["type"].removeprefix("deltaloom."), fields["model"] or fields["tenant"])
    return " · ".join(name for name in names if name)
