"""Test redacted parts."""

from __future__ import annotations

import pytest

from deltaloom.events import PartRedacted
from handlers.core.effects import Closing, Origin, Rank, UnattributableEventError
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.redacted import handler, on_redacted

ORIGIN = Origin(Arrival(EntryId(1, 0), 0), "resp_1")
EVENT = PartRedacted(
    type="deltaloom.part.redacted", output_index=1, content_index=2, kind="reasoning", item_id="it_1"
)


def test_redacted_part_is_closed() -> None:
    """Close a redacted part with an empty text."""
    part = PartKey(StreamKey("response", "resp_1"), 1, 2, "reasoning")
    assert list(on_redacted(EVENT, ORIGIN)) == [Closing(part, Rank.DONE, "", "it_1", redacted=True)]


def test_event_without_any_id_is_refused() -> None:
    """Refuse an event without any id."""
    with pytest.raises(UnattributableEventError):
        list(on_redacted(EVENT.model_copy(update={"item_id": None}), Origin(ORIGIN.arrival)))


def test_handler_has_no_texts_of_its_own() -> None:
    """Claim no kinds. Otherwise disabled kinds would be enabled."""
    assert [route.event_type for route in handler.routes] == ["deltaloom.part.redacted"]
    assert handler.kinds == frozenset()
