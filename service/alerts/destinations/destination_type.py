"""Define the row that each file of a destination ends with: its options and its sender."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.alerts.delivery import Destination
    from service.alerts.destinations.options import CommonOptions


class CreateDestination(Protocol):
    """A function that creates a destination and reads its secrets; nothing is connected yet."""

    def __call__(self, name: str, options: Any, environment: Mapping[str, str], /) -> Destination:
        """Create a destination.

        Args:
            name: name in `alerts.toml`.
            options: the destination's table.
            environment: environment variables in which `…_env` names are looked up.

        Raises:
            DestinationError: a secret or a file does not exist or is not valid; one line without secrets.
        """
        ...


class DestinationType(NamedTuple):
    """A type of destination."""

    options: type[CommonOptions]
    """Model of its tables in `alerts.toml`. Its field `type` is a literal with the name of the type."""
    create: CreateDestination
    """Creates the destination. Only then are libraries imported that load slowly."""

    @property
    def name(self) -> str:
        """Value of `type` in `alerts.toml`."""
        return str(get_args(self.options.model_fields["type"].annotation)[0])
