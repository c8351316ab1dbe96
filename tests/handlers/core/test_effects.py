"""What an event belongs to."""

from __future__ import annotations

import pytest

from handlers.core.effects import Origin, Rank, UnattributableEventError
from handlers.core.identity import Arrival, EntryId, StreamKey

AT = Arrival(EntryId(1, 0), 0)


@pytest.mark.parametrize("item_id", ["it_1", None])
def test_response_id_comes_first(item_id: str | None) -> None:
    """A server that changes item ids from event to event would have one text for each delta."""
    assert Origin(AT, "resp_1").stream_key(item_id) == StreamKey("response", "resp_1")


def test_item_id_stands_in() -> None:
    """Events of a producer that gives no response id would be refused."""
    assert Origin(AT).stream_key("it_1") == StreamKey("item", "it_1")


def test_without_any_id_the_remedy_is_said() -> None:
    """The texts of strangers would be joined, or their producer would not learn what to do."""
    with pytest.raises(UnattributableEventError, match="publish it with the field response_id"):
        Origin(AT).stream_key(None)


def test_ranks_are_in_the_order_of_their_worth() -> None:
    """A copy would replace what the text's own `.done` says."""
    assert sorted(Rank) == [Rank.DONE, Rank.CONTENT_PART, Rank.OUTPUT_ITEM, Rank.RESPONSE]
