"""Handle reasoning: its full text (`reasoning_text`) and its summary (`reasoning_summary_text`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.events import (
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
)
from handlers.core.parts import closing, fragment
from handlers.core.routing import Handler, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.core.effects import Closing, Fragment, Origin


def on_text_delta(event: ReasoningTextDelta, origin: Origin) -> Iterator[Fragment]:
    """Return the fragment of a `response.reasoning_text.delta`."""
    return fragment(event, origin, "reasoning", event.content_index, event.delta)


def on_text_done(event: ReasoningTextDone, origin: Origin) -> Iterator[Closing]:
    """Return the closing of a `response.reasoning_text.done`."""
    return closing(event, origin, "reasoning", event.content_index, event.text)


def on_summary_delta(event: ReasoningSummaryTextDelta, origin: Origin) -> Iterator[Fragment]:
    """Return the fragment of a `response.reasoning_summary_text.delta`."""
    return fragment(event, origin, "reasoning_summary", event.summary_index, event.delta)


def on_summary_done(event: ReasoningSummaryTextDone, origin: Origin) -> Iterator[Closing]:
    """Return the closing of a `response.reasoning_summary_text.done`."""
    return closing(event, origin, "reasoning_summary", event.summary_index, event.text)


handler = Handler(
    name="reasoning",
    routes=(
        Route(ReasoningTextDelta, on_text_delta, adds="reasoning"),
        Route(ReasoningTextDone, on_text_done),
        Route(ReasoningSummaryTextDelta, on_summary_delta, adds="reasoning_summary"),
        Route(ReasoningSummaryTextDone, on_summary_done),
    ),
    kinds=frozenset({"reasoning", "reasoning_summary"}),
)
