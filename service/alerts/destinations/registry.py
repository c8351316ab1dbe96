"""List all types of destinations; the model of `alerts.toml`, its mistakes and the tests follow from it.

A destination is one file: its options, its sender, and the row `destination` at its end. To add one, write
the file and add its name to `TYPES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import Field

from service.alerts.destinations import alertmanager, apprise_, command, log, pagerduty, slack, webhook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.alerts.delivery import Destination
    from service.alerts.destinations.destination_type import DestinationType
    from service.alerts.destinations.options import CommonOptions

TYPES: dict[str, DestinationType] = {
    module.destination.name: module.destination
    for module in (webhook, slack, pagerduty, alertmanager, apprise_, log, command)
}
"""Types of destinations, by the value of `type`."""

_TYPE_OF = {each.options: each for each in TYPES.values()}

if TYPE_CHECKING:
    DestinationOptions: TypeAlias = CommonOptions
else:
    DestinationOptions = Annotated[
        Union[tuple(each.options for each in TYPES.values())],  # noqa: UP007 - made of the list
        Field(discriminator="type"),
    ]
    """The table of a destination; its `type` selects the model."""


def create_destination(name: str, options: CommonOptions, environment: Mapping[str, str]) -> Destination:
    """Create a destination of the type that its options belong to, as `CreateDestination` describes."""
    return _TYPE_OF[type(options)].create(name, options, environment)
