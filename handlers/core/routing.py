"""Define handlers, routes, and the table from event types to routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from deltaloom.kinds import KINDS, TextKind
from handlers.core.effects import Effect, Origin

if TYPE_CHECKING:
    from deltaloom.events import Event
    from deltaloom.messages import AssembledText, Kind, ModerationAlert
    from handlers.core.effects import ContextValues
    from handlers.core.identity import PartKey
    from handlers.core.response import ResponseEnd

HandleEvent = Callable[[Any, Origin], Iterable[Effect]]
"""The function of a handler: it takes a validated event and its origin, and returns the effects."""


_KIND_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class HandlerError(ValueError):
    """An enabled handler is invalid, or conflicts with another one."""


class KindNameError(HandlerError):
    """A handler's own kind has a name that keys and settings cannot hold."""

    def __init__(self, name: str, handler: str) -> None:
        super().__init__(
            f"handler {handler!r} brings a kind of text named {name[:100]!r}: use at most 64 lower-case "
            "letters, digits and underscores, beginning with a letter"
        )


class HandlerConflictError(HandlerError):
    """Two enabled handlers claim one event type; the remedy is to remove one from DELTALOOM_HANDLERS."""

    def __init__(self, event_type: str, first: str, second: str) -> None:
        super().__init__(
            f"handlers {first!r} and {second!r} both claim the event type {event_type!r}; "
            "take one of them out of DELTALOOM_HANDLERS"
        )


class Route(NamedTuple):
    """A route of one event type: the model that validates the event, and the function that handles it.

    The `type` literal of the model is the event type.
    """

    model: type[Event]
    handle: HandleEvent
    adds: Kind | None = None
    """Kind of text, if `handle` only ever adds the event's `delta` to its part as a fragment of that kind.
    The worker then adds deltas without calling `handle`, on the fast path. None: always call `handle`."""

    @property
    def event_type(self) -> str:
        """Event type: the `type` literal of the model."""
        return _type_of(self.model)


@cache
def _type_of(model: type[Event]) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


class Opening(NamedTuple):
    """A part for which an opening alert may be raised, with the values known so far."""

    part: PartKey
    text: str
    item_id: str | None
    context: ContextValues
    at_ms: int
    """Time at which the part began, in ms since the epoch."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler of one family of events.

    `kinds` are the kinds of text that it rebuilds: the names of built-in ones, or the rows of its own kinds
    (`deltaloom.kinds`). Copies of kinds that no handler rebuilds are skipped. `opened` and `finished` make
    the alerts of its texts; None means no alert. `ended` is called with every end of a response, and returns
    an alert or None; only the first alert of each type is written.
    """

    name: str
    routes: tuple[Route, ...]
    kinds: frozenset[Kind | TextKind] = frozenset()
    opened: Callable[[Opening], ModerationAlert] | None = None
    finished: Callable[[AssembledText], ModerationAlert] | None = None
    ended: Callable[[ResponseEnd], ModerationAlert | None] | None = None

    @property
    def own_kinds(self) -> tuple[TextKind, ...]:
        """Kinds that this handler defines itself; a row with the name of a built-in kind is left out."""
        return tuple(each for each in self.kinds if isinstance(each, TextKind) and each.name not in KINDS)


class RoutingTable:
    """The enabled handlers: their routes by event type, and the handlers by kind of text."""

    __slots__ = ("end_handlers", "handlers", "kinds", "refusing", "routes")

    def __init__(self, handlers: Iterable[Handler]) -> None:
        """Build the table.

        Raises:
            HandlerConflictError: two handlers claim one event type.
            KindNameError: a handler brings a kind with a name that is not allowed.
        """
        self.handlers = tuple(handlers)
        for handler in self.handlers:
            for kind in handler.own_kinds:
                if not _KIND_NAME.fullmatch(kind.name):
                    raise KindNameError(kind.name, handler.name)
        self.kinds: Mapping[Kind, Handler] = {
            kind.name if isinstance(kind, TextKind) else kind: h for h in self.handlers for kind in h.kinds
        }
        rows = [*KINDS.values(), *(kind for handler in self.handlers for kind in handler.own_kinds)]
        self.refusing = frozenset(kind.name for kind in rows if kind.counts_as_refused)
        """Kinds of text that count as refused."""
        self.end_handlers = tuple(handler.ended for handler in self.handlers if handler.ended is not None)
        """Functions that are called with every end of a response."""
        claimed: dict[str, str] = {}
        routes: dict[str, Route] = {}
        for handler in self.handlers:
            for route in handler.routes:
                first = claimed.setdefault(route.event_type, handler.name)
                if first != handler.name:
                    raise HandlerConflictError(route.event_type, first, handler.name)
                routes[route.event_type] = route
        self.routes: Mapping[str, Route] = routes
