"""What is kept for a while: it is right, it is bounded, and what is in use stays."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pipeline.recent import Recent


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60))
def test_it_gives_what_was_kept_last_or_nothing(size: int, steps: list[tuple[int, bool]]) -> None:
    """An entry would be taken for another response's, or the memory grow for ever."""
    recent: Recent[int, int] = Recent(size)
    latest: dict[int, int] = {}
    for number, (key, puts) in enumerate(steps):
        if puts:
            recent[key] = latest[key] = number
        else:
            with suppress(KeyError):
                assert recent[key] == latest[key]
    kept = [key for key in range(10) if is_kept(recent, key)]
    assert len(kept) <= 2 * size


def is_kept(recent: Recent[int, int], key: int) -> bool:
    """Whether something is."""
    try:
        recent[key]
    except KeyError:
        return False
    return True


def test_what_is_in_use_stays() -> None:
    """Sources of open responses would be read again and again while others come and go."""
    recent: Recent[str, int] = Recent(10)
    recent["open"] = 1
    for number in range(1000):
        recent[f"once {number}"] = number
        assert recent["open"] == 1
    with pytest.raises(KeyError):
        recent["once 1"]
