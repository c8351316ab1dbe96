"""Test the routing table from event types to handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deltaloom.events import RefusalDelta, RefusalDone
from deltaloom.kinds import TextKind
from handlers import BUILT_IN, OFF_BY_DEFAULT
from handlers.core.routing import Handler, HandlerConflictError, KindNameError, Route, RoutingTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from handlers.core.effects import Effect, Origin


def _nothing(_event: RefusalDelta, _origin: Origin) -> Iterable[Effect]:
    return ()


def test_route_is_named_by_the_literal_of_its_model() -> None:
    """Read the event type from the model's literal."""
    assert Route(RefusalDelta, _nothing).event_type == "response.refusal.delta"


def test_two_handlers_of_one_type_are_both_named() -> None:
    """Refuse two handlers of one event type, and name both."""
    first = Handler("first", (Route(RefusalDone, _nothing), Route(RefusalDelta, _nothing)))
    second = Handler("second", (Route(RefusalDelta, _nothing),))
    with pytest.raises(HandlerConflictError) as conflict:
        RoutingTable([first, second])
    assert str(conflict.value) == (
        "handlers 'first' and 'second' both claim the event type 'response.refusal.delta'; "
        "take one of them out of DELTALOOM_HANDLERS"
    )


@pytest.mark.parametrize("name", ["", "a:b", "a=1", "a,b", "a b", "Apology", "_x", "a\n", "é", "a" * 65])
def test_a_kind_with_a_name_that_keys_cannot_hold_is_refused(name: str) -> None:
    """Name the handler and the rule. Otherwise the name would cut the keys and settings that hold it."""
    with pytest.raises(KindNameError, match=r"handler 'mine' brings a kind of text named .*lower-case"):
        RoutingTable([Handler("mine", (), frozenset({TextKind(name)}))])


def test_a_kind_with_a_plain_name_is_accepted() -> None:
    """Accept letters, digits and underscores."""
    table = RoutingTable([Handler("mine", (), frozenset({TextKind("apology_2")}))])
    assert set(table.kinds) == {"apology_2"}


def test_built_in_handlers_go_together() -> None:
    """Accept all built-in handlers together."""
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
    """Name the built-in handlers as `DELTALOOM_HANDLERS` does."""
    assert list(BUILT_IN) == [
        "refusal",
        "reasoning",
        "lifecycle",
        "stopped",
        "fallback",
        "loss",
        "output_text",
        "redacted",
    ]
    assert all(handler.name == name for name, handler in BUILT_IN.items())


def test_answers_and_redacted_parts_are_off_by_default() -> None:
    """Disable answers and redacted parts by default."""
    assert {"output_text", "redacted"} == OFF_BY_DEFAULT
