"""Handle refusals. The first delta raises one alert, the whole text another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.events import RefusalDelta, RefusalDone
from deltaloom.messages import AssembledText, ModerationAlert
from handlers.core.outputs import built, part_fields, time_of
from handlers.core.parts import closing, fragment
from handlers.core.routing import Handler, Opening, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.core.effects import Closing, Fragment, Origin


def on_delta(event: RefusalDelta, origin: Origin) -> Iterator[Fragment]:
    """Return the fragment of a delta. The fast path adds most deltas without this call: see `Route.adds`."""
    return fragment(event, origin, "refusal", event.content_index, event.delta)


def on_done(event: RefusalDone, origin: Origin) -> Iterator[Closing]:
    """Return the closing of a `response.refusal.done`."""
    return closing(event, origin, "refusal", event.content_index, event.refusal)


def opened(opening: Opening) -> ModerationAlert:
    """Return the alert of a refusal that has just begun, with the text and context known so far."""
    return built(
        ModerationAlert,
        {
            **part_fields(opening.part, opening.item_id, opening.context),
            "type": "deltaloom.refusal.opened",
            "id": opening.part.digest("opened"),
            "severity": "warning",
            "text": opening.text,
            "raised_at": time_of(opening.at_ms),
        },
    )


_SHARED = (AssembledText.model_fields.keys() & ModerationAlert.model_fields.keys()) - {"id", "type"}
"""Fields that an alert copies from its text's message."""


def finished(text: AssembledText) -> ModerationAlert:
    """Return the alert of a finished refusal, with its whole text."""
    return built(
        ModerationAlert,
        {
            **{name: getattr(text, name) for name in _SHARED},
            "type": "deltaloom.refusal.finished",
            "id": text.id.replace("text_", "finished_", 1),
            "severity": "warning",
            "raised_at": text.finished_at,
        },
    )


handler = Handler(
    name="refusal",
    routes=(Route(RefusalDelta, on_delta, adds="refusal"), Route(RefusalDone, on_done)),
    kinds=frozenset({"refusal"}),
    opened=opened,
    finished=finished,
)
