"""Map the `type` of a destination to its class, and create destinations from their tables."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.alerts.delivery import Destination
    from service.alerts.destinations.options import DestinationOptions

KINDS = {
    "webhook": "service.alerts.destinations.webhook:WebhookDestination",
    "slack": "service.alerts.destinations.slack:SlackDestination",
    "pagerduty": "service.alerts.destinations.pagerduty:PagerDutyDestination",
    "alertmanager": "service.alerts.destinations.alertmanager:AlertmanagerDestination",
    "apprise": "service.alerts.destinations.apprise_:AppriseDestination",
    "log": "service.alerts.destinations.log:LogDestination",
    "command": "service.alerts.destinations.command:CommandDestination",
}
"""Module and class of each type, imported on first use because some libraries load slowly."""


def made(name: str, options: DestinationOptions, environment: Mapping[str, str]) -> Destination:
    """Create a destination and read its secrets; nothing is connected yet.

    Args:
        name: name in `alerts.toml`.
        options: the destination's table.
        environment: environment variables in which `…_env` names are looked up.

    Raises:
        DestinationError: a secret or a file does not exist or is not valid; one line without secrets.
    """
    module, _, kind = KINDS[options.type].partition(":")
    make = cast("Callable[..., Destination]", getattr(import_module(module), kind))
    return make(name, options, environment)
