"""A handler, and the table that leads from an event's `type` to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from handlers.core.effects import Effect, Origin

if TYPE_CHECKING:
    from deltaloom.events import Event
    from deltaloom.messages import AssembledText, Kind, ModerationAlert
    from handlers.core.effects import Context
    from handlers.core.identity import PartKey
    from handlers.core.response import ResponseEnd

HandleEvent = Callable[[Any, Origin], Iterable[Effect]]
"""Takes an event of the route's model and where it came from; returns what should be done."""


class HandlerConflictError(ValueError):
    """The operator enabled two handlers that claim one event type: take one out of DELTALOOM_HANDLERS."""

    def __init__(self, event_type: str, first: str, second: str) -> None:
        super().__init__(
            f"handlers {first!r} and {second!r} both claim the event type {event_type!r}; "
            "take one of them out of DELTALOOM_HANDLERS"
        )


class Route(NamedTuple):
    """One event type: the model that reads it (its `type` literal is the key) and what is done with it."""

    model: type[Event]
    handle: HandleEvent
    adds: Kind | None = None
    """The kind of text, if all that `handle` ever does is add the event's `delta` to its part, a fragment of
    that kind: nearly all events are deltas, and the worker can add one without asking."""

    @property
    def event_type(self) -> str:
        """The `type` literal of the model."""
        return _type_of(self.model)


@cache
def _type_of(model: type[Event]) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


class Opening(NamedTuple):
    """A part that has just begun: what is known of it so far."""

    part: PartKey
    text: str
    item_id: str | None
    context: Context
    at_ms: int


@dataclass(frozen=True, slots=True)
class Handler:
    """What to do with one family of events.

    `kinds` names the texts it rebuilds: full copies of other kinds are passed over. `opened` and
    `finished` make the alerts that its texts raise, if they raise any. `ended` is asked of every end of a
    response, and makes the alert that this raises, if it raises one; of each type, the first is written.
    """

    name: str
    routes: tuple[Route, ...]
    kinds: frozenset[Kind] = frozenset()
    opened: Callable[[Opening], ModerationAlert] | None = None
    finished: Callable[[AssembledText], ModerationAlert] | None = None
    ended: Callable[[ResponseEnd], ModerationAlert | None] | None = None


class RoutingTable:
    """All enabled handlers: which takes an event type, and which takes a kind of text."""

    __slots__ = ("handlers", "kinds", "routes")

    def __init__(self, handlers: Iterable[Handler]) -> None:
        """Build the table; `HandlerConflictError` if two handlers claim one type."""
        self.handlers = tuple(handlers)
        self.kinds: Mapping[Kind, Handler] = {kind: h for h in self.handlers for kind in h.kinds}
        claimed: dict[str, str] = {}
        routes: dict[str, Route] = {}
        for handler in self.handlers:
            for route in handler.routes:
                first = claimed.setdefault(route.event_type, handler.name)
                if first != handler.name:
                    raise HandlerConflictError(route.event_type, first, handler.name)
                routes[route.event_type] = route
        self.routes: Mapping[str, Route] = routes
