"""Test the keys of deltaloom's internal state."""

from __future__ import annotations

import pytest

from deltaloom.streams import StreamNames
from handlers.core.identity import StreamKey
from service.keys import Keys

KEYS = Keys(StreamNames())


@pytest.mark.parametrize("name", ["r", "é 3", "x" * 1024, "\ud800"])
def test_marker_has_a_fixed_length(name: str) -> None:
    """Give every marker key the same length. Otherwise a long response id would make the key as long."""
    marker = KEYS.marker(StreamKey("response", name))
    assert marker.startswith("deltaloom:done:")
    assert len(marker) == len("deltaloom:done:") + 20
    assert marker == KEYS.marker(StreamKey("response", name))


def test_markers_of_different_responses_differ() -> None:
    """Give different stream keys different markers. Otherwise an open response would look finished."""
    keys = [StreamKey("response", "a"), StreamKey("response", "b"), StreamKey("item", "a")]
    assert len({KEYS.marker(key) for key in keys}) == 3
    assert Keys(StreamNames("other")).marker(keys[0]).startswith("other:done:")


def test_marker_is_found_by_later_versions() -> None:
    """Keep the marker key stable across versions.

    Otherwise an upgrade would forget all finished responses.
    """
    assert KEYS.marker(StreamKey("response", "resp_1")) == "deltaloom:done:mv9aIdJ5AQV_mVt2UAY8"
