"""Test the assignment of events to stream keys, the ranks, and checksums."""

from __future__ import annotations

from hashlib import sha256

import pytest

from deltaloom import limits
from handlers.core.effects import Checksum, Origin, Rank, UnattributableEventError
from handlers.core.identity import Arrival, EntryId, StreamKey

AT = Arrival(EntryId(1, 0), 0)


@pytest.mark.parametrize("item_id", ["it_1", None])
def test_response_id_comes_first(item_id: str | None) -> None:
    """Prefer the response id, since some servers change item ids with each event."""
    assert Origin(AT, "resp_1").stream_key(item_id) == StreamKey("response", "resp_1")


def test_item_id_is_used_without_a_response_id() -> None:
    """Use the item id if there is no response id."""
    assert Origin(AT).stream_key("it_1") == StreamKey("item", "it_1")


def test_without_any_id_the_error_names_the_remedy() -> None:
    """Refuse an event without any id, and name the remedy."""
    with pytest.raises(UnattributableEventError, match="publish it with the field response_id"):
        Origin(AT).stream_key(None)


def test_ranks_are_ordered() -> None:
    """Order ranks from the text's own `.done` to the final copy."""
    assert sorted(Rank) == [Rank.DONE, Rank.CONTENT_PART, Rank.OUTPUT_ITEM, Rank.RESPONSE]


def test_item_id_that_is_the_only_identity_is_not_too_long() -> None:
    """Refuse an item id beyond the limit if it is the only id."""
    assert Origin(AT).stream_key("x" * limits.ID) == StreamKey("item", "x" * limits.ID)
    message = r"item_id has 1025 characters, at most 1024, and there is no response_id; publish it with"
    with pytest.raises(UnattributableEventError, match=message):
        Origin(AT).stream_key("x" * (limits.ID + 1))
    assert Origin(AT, "resp_1").stream_key("x" * (limits.ID + 1)) == StreamKey("response", "resp_1")


@pytest.mark.parametrize(
    ("text", "size", "fits"),
    [
        ("é", None, True),
        ("é", 2, True),
        ("é", 1, False),
        ("é", 0, False),
        ("e", 2, False),
        ("", None, False),
    ],
)
def test_checksum_fits_its_text_only(text: str, size: int | None, *, fits: bool) -> None:
    """Accept a text only if its hash and its size, if given, are equal."""
    for digest in (sha256("é".encode()).hexdigest(), sha256("é".encode()).hexdigest().upper()):
        assert Checksum(digest, size).fits(text) is fits


def test_checksum_of_an_empty_text_fits_it() -> None:
    """Accept the checksum of an empty text with size 0."""
    assert Checksum(sha256(b"").hexdigest(), 0).fits("")
    assert not Checksum(sha256(b"").hexdigest(), 0).fits("a")
