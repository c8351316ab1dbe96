"""What is kept for a while: it is right, it is bounded, and what is in use stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.recent import Recent


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["put", "get", "discard"])), max_size=60),
)
def test_it_gives_what_was_kept_last_or_nothing(size: int, steps: list[tuple[int, str]]) -> None:
    """An entry would be taken for another response's, or the memory grow for ever."""
    recent: Recent[int, int] = Recent(size)
    latest: dict[int, int] = {}
    for number, (key, what) in enumerate(steps):
        if what == "put":
            recent[key] = latest[key] = number
        elif what == "discard":
            recent.discard(key)
            latest.pop(key, None)
        else:
            assert recent.get(key) in {None, latest.get(key)}
    kept = [key for key in range(10) if recent.get(key) is not None]
    assert len(kept) <= 2 * size


def test_what_is_in_use_stays() -> None:
    """Sources of open responses would be read again and again while others come and go."""
    recent: Recent[str, int] = Recent(10)
    recent["open"] = 1
    for number in range(1000):
        recent[f"once {number}"] = number
        assert recent["open"] == 1
    with pytest.raises(KeyError):
        recent["once 1"]
