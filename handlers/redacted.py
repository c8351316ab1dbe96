"""Handle parts with a text that the provider withholds. Off by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.events import PartRedacted
from handlers.core.effects import Closing, Origin, Rank
from handlers.core.identity import PartKey
from handlers.core.routing import Handler, Route

if TYPE_CHECKING:
    from collections.abc import Iterator


def on_redacted(event: PartRedacted, origin: Origin) -> Iterator[Closing]:
    """Close the part of a `deltaloom.part.redacted` without a text."""
    part = PartKey(origin.stream_key(event.item_id), event.output_index, event.content_index, event.kind)
    yield Closing(part, Rank.DONE, "", event.item_id, redacted=True)


handler = Handler(name="redacted", routes=(Route(PartRedacted, on_redacted),))
