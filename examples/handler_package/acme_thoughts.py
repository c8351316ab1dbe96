"""Handler of `acme.thought.delta` and `.done`, with which Acme's gateway streams a model's reasoning."""

from collections.abc import Iterator
from typing import Literal

from deltaloom.events import PartEvent
from handlers.core.effects import Closing, Fragment, Origin
from handlers.core.parts import closing, fragment
from handlers.core.routing import Handler, Route


class ThoughtDelta(PartEvent):
    """A fragment of a thought."""

    type: Literal["acme.thought.delta"]
    thought: str


class ThoughtDone(PartEvent):
    """The whole thought."""

    type: Literal["acme.thought.done"]
    thought: str


def on_delta(event: ThoughtDelta, origin: Origin) -> Iterator[Fragment]:
    """Return the fragment of an `acme.thought.delta`."""
    return fragment(event, origin, "reasoning", event.content_index, event.thought)


def on_done(event: ThoughtDone, origin: Origin) -> Iterator[Closing]:
    """Return the closing of an `acme.thought.done`."""
    return closing(event, origin, "reasoning", event.content_index, event.thought)


handler = Handler(
    name="acme_thoughts",
    routes=(Route(ThoughtDelta, on_delta), Route(ThoughtDone, on_done)),
)
