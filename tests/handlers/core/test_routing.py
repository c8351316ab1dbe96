"""The table from an event's type to its handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deltaloom.events import RefusalDelta, RefusalDone
from handlers import BUILT_IN, OFF_BY_DEFAULT
from handlers.core.routing import Handler, HandlerConflictError, Route, RoutingTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from handlers.core.effects import Effect, Origin


def _nothing(_event: RefusalDelta, _origin: Origin) -> Iterable[Effect]:
    return ()


def test_route_is_named_by_the_literal_of_its_model() -> None:
    """An event would not find its handler."""
    assert Route(RefusalDelta, _nothing).event_type == "response.refusal.delta"


def test_two_handlers_of_one_type_are_both_named() -> None:
    """Which of two handlers runs would depend on their order, and nobody would know."""
    first = Handler("first", (Route(RefusalDone, _nothing), Route(RefusalDelta, _nothing)))
    second = Handler("second", (Route(RefusalDelta, _nothing),))
    with pytest.raises(HandlerConflictError) as conflict:
        RoutingTable([first, second])
    assert str(conflict.value) == (
        "handlers 'first' and 'second' both claim the event type 'response.refusal.delta'; "
        "take one of them out of DELTALOOM_HANDLERS"
    )


def test_built_in_handlers_go_together() -> None:
    """The worker could not start with all its handlers."""
    table = RoutingTable(BUILT_IN.values())
    assert set(table.kinds) == {"refusal", "reasoning", "reasoning_summary", "output_text"}
    assert {kind: handler.name for kind, handler in table.kinds.items()} == {
        "refusal": "refusal",
        "reasoning": "reasoning",
        "reasoning_summary": "reasoning",
        "output_text": "output_text",
    }
    assert set(table.routes) == {
        route.event_type for handler in BUILT_IN.values() for route in handler.routes
    }
    assert table.handlers == tuple(BUILT_IN.values())


def test_handlers_are_known_by_their_own_names() -> None:
    """`DELTALOOM_HANDLERS` would not find a handler."""
    assert list(BUILT_IN) == [
        "refusal",
        "reasoning",
        "lifecycle",
        "stopped",
        "loss",
        "output_text",
        "redacted",
    ]
    assert all(handler.name == name for name, handler in BUILT_IN.items())


def test_answers_and_withheld_parts_are_off_by_default() -> None:
    """Otherwise answers would be kept without having been asked for, or refusals would not be."""
    assert {"output_text", "redacted"} == OFF_BY_DEFAULT
