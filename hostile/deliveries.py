"""Comparison of delivered alerts about honest responses with raised ones. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from chaos import deliveries as chaos

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Deliveries(chaos.Deliveries):
    """Deliveries to the honest destination. No process is killed in this bench, so each alert arrives once.

    Args:
        violate: called for each violation with its kind and an example.
        is_honest: returns whether an alert is about an honest response; others are only counted.
        added: times at which alerts were added to their stream, in seconds since 1970, by id.
        late: maximum seconds from the stream to the destination.
        clock: returns the time in seconds since 1970.
    """

    def __init__(
        self,
        violate: Callable[[str, str], None],
        is_honest: Callable[[Mapping[str, Any]], bool],
        added: Mapping[str, float],
        *,
        late: float = float("inf"),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(violate)
        self._is_honest = is_honest
        self._late = late
        self._clock = clock
        self._added = added
        self._came: dict[str, float] = {}
        self.hostile = 0

    @property
    def missing(self) -> int:
        """Return the number of raised alerts that have not arrived."""
        return len(self._raised - self._arrived)

    def raised(self, fields: Mapping[str, Any]) -> None:
        """Note that an alert is on the stream."""
        if self._is_honest(fields):
            super().raised(fields)

    def attempt(self, fields: Mapping[str, Any], *, taken: bool) -> None:
        """Note an attempt to deliver an alert, and whether it was accepted."""
        if not self._is_honest(fields):
            self.hostile += 1
            return
        if taken and fields["id"] in self._arrived:
            self._violate("doubled delivery", f"{fields['id']} arrived again")
        self._came.setdefault(fields["id"], self._clock())
        super().attempt(fields, taken=taken)

    def times(self) -> dict[str, float]:
        """Return for each alert the seconds from its stream to its destination."""
        return {name: came - self._added[name] for name, came in self._came.items() if name in self._added}

    def end(self) -> None:
        """Report missing and late alerts."""
        super().end()
        for name, took in self.times().items():
            if took > self._late:
                self._violate("late delivery", f"{name} was on its way for {took:.1f} s")
