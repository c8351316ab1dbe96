"""Alerts about honest responses, held against those that arrived. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos import deliveries as chaos

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Deliveries(chaos.Deliveries):
    """Of the honest destination: nothing is killed here, so each alert arrives once.

    Args:
        violate: is told what is wrong: the kind, and an example.
        is_honest: whether an alert is about an honest response; others are only counted.
    """

    def __init__(
        self, violate: Callable[[str, str], None], is_honest: Callable[[Mapping[str, Any]], bool]
    ) -> None:
        super().__init__(violate)
        self._is_honest = is_honest
        self.hostile = 0

    @property
    def missing(self) -> int:
        """Alerts that were raised and have not arrived."""
        return len(self._raised - self._arrived)

    def raised(self, fields: Mapping[str, Any]) -> None:
        """Note that an alert is on the stream."""
        if self._is_honest(fields):
            super().raised(fields)

    def attempt(self, fields: Mapping[str, Any], *, taken: bool) -> None:
        """Note that an alert came, and was taken or not."""
        if not self._is_honest(fields):
            self.hostile += 1
            return
        if taken and fields["id"] in self._arrived:
            self._violate("doubled delivery", f"{fields['id']} arrived again")
        super().attempt(fields, taken=taken)
