"""Effects of the two events that most parts consist of: a delta and a `.done`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.events import TextDone
from handlers.core.effects import Checksum, Closing, Fragment, Origin, Rank
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
    """Yield the one fragment that a delta event adds to its part. `index` is the content or summary index."""
    yield Fragment(_part(event, origin, kind, index), delta, event.sequence_number, event.item_id)


def closing(
    event: PartEvent | SummaryEvent, origin: Origin, kind: Kind, index: int, text: str | None
) -> Iterator[Closing]:
    """Yield the one closing that a `.done` event gives for its part.

    `index` is the content or summary index. The closing has `text` or, if that is None, the checksum of the
    text, if the event has one.
    """
    checksum, source = None, "provider"
    if isinstance(event, TextDone):
        if text is None and event.text_sha256 is not None:
            checksum = Checksum(event.text_sha256.lower(), event.text_bytes)
        source = "producer" if event.integrity_source == "producer" else "provider"
    part = _part(event, origin, kind, index)
    yield Closing(part, Rank.DONE, text or "", event.item_id, checksum, source)
