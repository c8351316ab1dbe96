"""The two events that most parts consist of: a delta, and the whole text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.core.effects import Closing, Fragment, Origin, Rank
from handlers.core.identity import PartKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.events import PartEvent, SummaryEvent
    from deltaloom.messages import Kind


def _part(event: PartEvent | SummaryEvent, origin: Origin, kind: Kind, index: int) -> PartKey:
    return PartKey(origin.stream_key(event.item_id), event.output_index, index, kind)


def fragment(
    event: PartEvent | SummaryEvent, origin: Origin, kind: Kind, index: int, delta: str
) -> Iterator[Fragment]:
    """A delta adds a fragment to its part."""
    yield Fragment(_part(event, origin, kind, index), delta, event.sequence_number, event.item_id)


def closing(
    event: PartEvent | SummaryEvent, origin: Origin, kind: Kind, index: int, text: str
) -> Iterator[Closing]:
    """A `.done` closes its part and says what its text is."""
    yield Closing(_part(event, origin, kind, index), Rank.DONE, text, event.item_id)
