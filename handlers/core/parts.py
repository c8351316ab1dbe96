"""Make the effects of the delta events and the `.done` event of a part, for handlers of any kind of text."""

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
    """Yield one fragment: the text `delta` of a delta event, for its part of the kind `kind`.

    `index` is the content or summary index of the event.

    Raises:
        UnattributableEventError: the entry has no response id, and the event's item id is missing or too
            long. The iterator raises it, not the call.
    """
    yield Fragment(_part(event, origin, kind, index), delta, event.sequence_number, event.item_id)


def closing(
    event: PartEvent | SummaryEvent, origin: Origin, kind: Kind, index: int, text: str | None
) -> Iterator[Closing]:
    """Yield one closing: that of a `.done` event, for its part of the kind `kind`.

    `index` is the content or summary index of the event. `text` is the whole text that the event gives. If it
    is None, the text of the closing is empty, and the closing has the event's checksum, if there is one.

    Raises:
        UnattributableEventError: the entry has no response id, and the event's item id is missing or too
            long. The iterator raises it, not the call.
    """
    checksum, source = None, "provider"
    if isinstance(event, TextDone):
        if text is None and event.text_sha256 is not None:
            checksum = Checksum(event.text_sha256.lower(), event.text_bytes)
        source = "producer" if event.integrity_source == "producer" else "provider"
    part = _part(event, origin, kind, index)
    yield Closing(part, Rank.DONE, text or "", event.item_id, checksum, source)
