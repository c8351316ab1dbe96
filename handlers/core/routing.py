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
"""Function of a route. It takes an event, validated by the route's model, and the event's origin. It returns
the effects, or yields them."""


_KIND_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class HandlerError(ValueError):
    """An enabled handler is invalid, or conflicts with another one."""


class KindNameError(HandlerError):
    """A handler's own kind has a name that keys and settings cannot hold.

    A name has at most 64 lower-case letters (a to z), digits and underscores, and begins with a letter.
    """

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
    """A part for which an opening alert may be raised, with the values known at that time.

    When a batch begins the part with a delta, `text` is the text of the part's deltas in this batch. When the
    part is finished and has not raised the alert, `text` is its whole text.
    """

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
    (`deltaloom.kinds`). Copies and closings of kinds that no enabled handler rebuilds are skipped.

    `opened` makes the alert of a text that begins, `finished` that of a finished text; without the function,
    such texts raise no alert. `ended` is called with the ends of all responses, also of those that are given
    up, and returns an alert or None. A function may be called several times for one text or end. An opening
    alert is written once for each part, a finished alert once for each text, and an alert about ends once for
    each type and response.
    """

    name: str
    routes: tuple[Route, ...]
    kinds: frozenset[Kind | TextKind] = frozenset()
    opened: Callable[[Opening], ModerationAlert] | None = None
    finished: Callable[[AssembledText], ModerationAlert] | None = None
    ended: Callable[[ResponseEnd], ModerationAlert | None] | None = None

    @property
    def own_kinds(self) -> tuple[TextKind, ...]:
        """Rows in `kinds` that define a kind of this handler, in no fixed order.

        A row with the name of a built-in kind is left out.
        """
        return tuple(each for each in self.kinds if isinstance(each, TextKind) and each.name not in KINDS)


class RoutingTable:
    """The enabled handlers: their routes by event type, and the handlers by kind of text.

    `routes` has the route of each event type. `kinds` has the handler of each kind of text, by the name of
    the kind; the last handler that rebuilds a kind counts.
    """

    __slots__ = ("end_handlers", "handlers", "kinds", "refusing", "routes")

    def __init__(self, handlers: Iterable[Handler]) -> None:
        """Build the table.

        Raises:
            HandlerConflictError: two handlers with different names claim one event type.
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
        """Names of the kinds of text that count as refused, also of built-in ones without a handler."""
        self.end_handlers = tuple(handler.ended for handler in self.handlers if handler.ended is not None)
        """Functions `ended` of all handlers that have one; each is called with every end of a response."""
        claimed: dict[str, str] = {}
        routes: dict[str, Route] = {}
        for handler in self.handlers:
            for route in handler.routes:
                first = claimed.setdefault(route.event_type, handler.name)
                if first != handler.name:
                    raise HandlerConflictError(route.event_type, first, handler.name)
                routes[route.event_type] = route
        self.routes: Mapping[str, Route] = routes
