"""List all types of destinations; the model of `alerts.toml`, its mistakes and the tests follow from it.

A destination is one file: its options, its sender, and the row `destination` at its end. To add one, write
the file and add the name of its module to `_MODULES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, Union

from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.alerts.delivery import Destination
    from service.alerts.destinations.destination_type import DestinationType
    from service.alerts.destinations.options import CommonOptions

_MODULES: Final = (
    "webhook",
    "slack",
    "pagerduty",
    "alertmanager",
    "apprise_",
    "log",
    "command",
)
"""Modules of this package that have a row `destination`, in the order in which errors list their types."""


def _destination_in(module: str) -> DestinationType:
    row: DestinationType = import_module(f"{__package__}.{module}").destination
    return row


TYPES: dict[str, DestinationType] = {row.name: row for row in map(_destination_in, _MODULES)}
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
