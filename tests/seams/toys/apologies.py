"""Handle apologies: a kind of text of its own, which counts as a refusal does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from deltaloom.events import PartEvent
from deltaloom.kinds import TextKind
from deltaloom.messages import ModerationAlert
from handlers.core.outputs import part_fields, time_of
from handlers.core.parts import closing, fragment
from handlers.core.routing import Handler, Opening, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.core.effects import Closing, Fragment, Origin

APOLOGY = TextKind("apology", "the model is sorry", counts_as_refused=True, style="bold magenta")


class ApologyDelta(PartEvent):
    """A fragment of an apology."""

    type: Literal["toy.apology.delta"]
    delta: str


class ApologyDone(PartEvent):
    """The whole apology."""

    type: Literal["toy.apology.done"]
    text: str


def on_delta(event: ApologyDelta, origin: Origin) -> Iterator[Fragment]:
    """Return the fragment of a `toy.apology.delta`."""
    return fragment(event, origin, APOLOGY.name, event.content_index, event.delta)


def on_done(event: ApologyDone, origin: Origin) -> Iterator[Closing]:
    """Return the closing of a `toy.apology.done`."""
    return closing(event, origin, APOLOGY.name, event.content_index, event.text)


def opened(opening: Opening) -> ModerationAlert:
    """Return the alert of an apology that has just begun."""
    return ModerationAlert.model_validate(
        {
            **part_fields(opening.part, opening.item_id, opening.context),
            "type": "toy.apology.opened",
            "id": opening.part.digest("opened"),
            "severity": "info",
            "text": opening.text,
            "raised_at": time_of(opening.at_ms),
        }
    )


handler = Handler(
    name="apologies",
    routes=(Route(ApologyDelta, on_delta, adds=APOLOGY.name), Route(ApologyDone, on_done)),
    kinds=frozenset({APOLOGY}),
    opened=opened,
)
