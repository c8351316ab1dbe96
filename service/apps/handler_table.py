"""Build the routing table of the handlers that the settings enable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.core.routing import RoutingTable
from service.handler_packages import enabled_names, known_handlers
from service.settings import SettingsError

if TYPE_CHECKING:
    from service.settings import Settings


def routing_table(settings: Settings) -> RoutingTable:
    """Return the routing table of the enabled handlers.

    Raises:
        SettingsError: the setting names an unknown handler.
        HandlerError: two handlers claim one type of events, or a kind of text has a name that is not allowed.
    """
    known = known_handlers()
    names = enabled_names(settings.handlers, known)
    if any(name not in known for name in names):
        message = f"DELTALOOM_HANDLERS={settings.handlers!r} is not allowed: {', '.join(known)}"
        raise SettingsError(message)
    return RoutingTable(known[name] for name in names)
