"""Handlers of events: one pure module for each family of events.

A handler takes an event and returns effects. To add one, write a module and add it to `BUILT_IN`, or publish
a package that names a `Handler` in the entry-point group `deltaloom.handlers`.
"""

from handlers import content_filters as stopped
from handlers import fallback, lifecycle, loss, output_text, reasoning, redacted, refusal
from handlers.core.routing import Handler

ENTRY_POINT_GROUP = "deltaloom.handlers"

BUILT_IN: dict[str, Handler] = {
    module.handler.name: module.handler
    for module in (refusal, reasoning, lifecycle, stopped, fallback, loss, output_text, redacted)
}

OFF_BY_DEFAULT = frozenset({output_text.handler.name, redacted.handler.name})
"""Built-in handlers that are enabled only if `DELTALOOM_HANDLERS` names them."""

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "OFF_BY_DEFAULT", "Handler"]
