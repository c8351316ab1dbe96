"""What to do with an event: one file a family of events, each pure.

A handler takes an event and returns what it wants done. A new one is a new file and a line in
`BUILT_IN`, or a package of its own that names a `Handler` in the entry-point group `deltaloom.handlers`.
"""

from handlers import lifecycle, loss, output_text, reasoning, redacted, refusal, stopped
from handlers.core.routing import Handler

ENTRY_POINT_GROUP = "deltaloom.handlers"

BUILT_IN: dict[str, Handler] = {
    module.handler.name: module.handler
    for module in (refusal, reasoning, lifecycle, stopped, loss, output_text, redacted)
}

OFF_BY_DEFAULT = frozenset({output_text.handler.name, redacted.handler.name})
"""Only for those who name them in `DELTALOOM_HANDLERS`."""

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "OFF_BY_DEFAULT", "Handler"]
