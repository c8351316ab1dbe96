"""A destination that leaves the headline of each alert in a file, for a pigeon to carry."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads the annotations of options at run time
from typing import TYPE_CHECKING, Literal

from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations import wording
from service.alerts.destinations.destination_type import DestinationType
from service.alerts.destinations.options import CommonOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.alerts.delivery import Notification


class PigeonOptions(CommonOptions):
    """Options of a pigeon."""

    type: Literal["pigeon"]
    loft: Path
    """File to which each headline is appended."""


class PigeonDestination:
    """A destination that appends to a file."""

    def __init__(self, name: str, options: PigeonOptions, environment: Mapping[str, str]) -> None:
        """Store the options; a pigeon has no secrets."""
        del environment
        self.name = name
        self._loft = options.loft

    async def deliver(self, notification: Notification) -> Outcome:
        """Append one line."""
        with self._loft.open("a") as loft:
            loft.write(f"{wording.headline(notification)}\n")
        return Outcome(Verdict.DELIVERED, "coo")

    async def aclose(self) -> None:
        """Do nothing; no resources are held."""


destination = DestinationType(PigeonOptions, PigeonDestination)
