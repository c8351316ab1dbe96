"""Test the ids of entries, responses and parts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from tests.strategies import entry_ids, part_keys, stream_keys


@given(entry_ids)
def test_entry_id_is_read_back(entry: EntryId) -> None:
    """Parse a formatted entry id."""
    assert EntryId.parse(str(entry)) == entry


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-2-3"])
def test_invalid_entry_id_is_refused(text: str) -> None:
    """Refuse invalid entry ids."""
    with pytest.raises(ValueError, match="invalid literal"):
        EntryId.parse(text)


def test_entry_ids_are_ordered_as_numbers() -> None:
    """Order entry ids by value. Otherwise the low-water mark could pass an entry that is not stored."""
    assert EntryId(9, 0) < EntryId(10, 0)
    assert EntryId(1, 9) < EntryId(1, 10)
    assert Arrival(EntryId(1, 9), 5) < Arrival(EntryId(1, 10), 0)


@given(stream_keys)
def test_stream_key_is_read_back(key: StreamKey) -> None:
    """Parse a formatted stream key."""
    assert StreamKey.parse(str(key)) == key


def test_an_item_is_no_response_of_the_same_name() -> None:
    """Format an item and a response of one name differently."""
    assert str(StreamKey("item", "x")) != str(StreamKey("response", "x"))


@given(part_keys)
def test_part_is_read_back_from_its_field(part: PartKey) -> None:
    """Parse a part's field."""
    assert PartKey.from_field(part.stream_key, part.field) == part


@given(part_keys)
def test_digest_is_deterministic(part: PartKey) -> None:
    """Compute the same digest for equal parts, so that a subscriber can drop repeats."""
    again = PartKey(StreamKey(*part.stream_key), part.output_index, part.content_index, part.kind)
    assert again.digest("text") == part.digest("text")
    assert re.fullmatch(r"text_[0-9a-f]{32}", part.digest("text"))


def test_digest_stays_as_it_is() -> None:
    """Keep the digest stable across versions. Otherwise an upgrade would change a part's id."""
    part = PartKey(StreamKey("response", "resp_1"), 0, 1, "refusal")
    assert part.digest("text") == "text_e91b13080a55d6691103115f411a55c0"


@given(st.lists(part_keys, unique=True, min_size=2, max_size=6))
def test_digests_of_different_parts_differ(parts: list[PartKey]) -> None:
    """Compute different digests for different parts."""
    assert len({part.digest("text") for part in parts}) == len(parts)


def test_separators_in_ids_do_not_mix_parts() -> None:
    """Keep parts apart whose response ids contain separators."""
    ids = ["r", "r\n0:0:refusal", "r:0", "r:0:0:refusal", "item:r", "response:r"]
    keys = [StreamKey("response", value) for value in ids] + [StreamKey("item", value) for value in ids]
    parts = [PartKey(key, 0, 0, "refusal") for key in keys]
    assert len({part.digest(purpose) for part in parts for purpose in ("opened", "text")}) == 2 * len(parts)
