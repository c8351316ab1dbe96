"""Test the cache: it returns the latest values, is bounded, and retains values in use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.two_generation_cache import TwoGenerationCache


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["put", "get", "discard"])), max_size=60),
)
def test_the_latest_value_or_nothing_is_returned(size: int, steps: list[tuple[int, str]]) -> None:
    """Return the latest value or None, and hold at most twice the configured size."""
    cache: TwoGenerationCache[int, int] = TwoGenerationCache(size)
    latest: dict[int, int] = {}
    for number, (key, what) in enumerate(steps):
        if what == "put":
            cache[key] = latest[key] = number
        elif what == "discard":
            cache.discard(key)
            latest.pop(key, None)
        else:
            assert cache.get(key) in {None, latest.get(key)}
    kept = [key for key in range(10) if cache.get(key) is not None]
    assert len(kept) <= 2 * size


def test_values_in_use_are_retained() -> None:
    """Retain values in use. Otherwise the sources of open responses would be read again and again."""
    cache: TwoGenerationCache[str, int] = TwoGenerationCache(10)
    cache["open"] = 1
    for number in range(1000):
        cache[f"once {number}"] = number
        assert cache["open"] == 1
    with pytest.raises(KeyError):
        cache["once 1"]
