"""The kinds of destinations by their `type`, and making one of its table."""

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
"""Where each class is. It is imported when one is made: some stand on libraries that take their time."""


def made(name: str, options: DestinationOptions, environment: Mapping[str, str]) -> Destination:
    """A destination, with its secrets read; nothing is connected to yet.

    Args:
        name: its name in `alerts.toml`.
        options: its table.
        environment: where `…_env` is looked up.

    Raises:
        DestinationError: a secret or a file is not there, or is no such thing; one line that holds no secret.
    """
    module, _, kind = KINDS[options.type].partition(":")
    make = cast("Callable[..., Destination]", getattr(import_module(module), kind))
    return make(name, options, environment)
