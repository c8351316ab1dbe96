"""Handle the answer itself. Off by default: most operators store answers elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.events import OutputTextDelta, OutputTextDone
from handlers.core.parts import closing, fragment
from handlers.core.routing import Handler, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.core.effects import Closing, Fragment, Origin


def on_delta(event: OutputTextDelta, origin: Origin) -> Iterator[Fragment]:
    """Return the fragment of a `response.output_text.delta`."""
    return fragment(event, origin, "output_text", event.content_index, event.delta)


def on_done(event: OutputTextDone, origin: Origin) -> Iterator[Closing]:
    """Return the closing of a `response.output_text.done`."""
    return closing(event, origin, "output_text", event.content_index, event.text)


handler = Handler(
    name="output_text",
    routes=(Route(OutputTextDelta, on_delta, adds="output_text"), Route(OutputTextDone, on_done)),
    kinds=frozenset({"output_text"}),
)
