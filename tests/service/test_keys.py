"""The keys that a worker keeps for itself."""

from __future__ import annotations

import pytest

from deltaloom.streams import StreamNames
from handlers.core.identity import StreamKey
from service.keys import Keys

KEYS = Keys(StreamNames())


@pytest.mark.parametrize("name", ["r", "é 3", "x" * 1024, "\ud800"])
def test_marker_is_short_whatever_the_id(name: str) -> None:
    """Otherwise what remembers a response that is over would cost as much as its producer likes."""
    marker = KEYS.marker(StreamKey("response", name))
    assert marker.startswith("deltaloom:done:")
    assert len(marker) == len("deltaloom:done:") + 20
    assert marker == KEYS.marker(StreamKey("response", name))


def test_marker_is_its_responses_own() -> None:
    """Otherwise a response would be taken for one that is over."""
    keys = [StreamKey("response", "a"), StreamKey("response", "b"), StreamKey("item", "a")]
    assert len({KEYS.marker(key) for key in keys}) == 3
    assert Keys(StreamNames("other")).marker(keys[0]).startswith("other:done:")


def test_marker_is_found_by_later_versions() -> None:
    """Otherwise every response that is over would be forgotten by an update."""
    assert KEYS.marker(StreamKey("response", "resp_1")) == "deltaloom:done:mv9aIdJ5AQV_mVt2UAY8"
