"""Test the order of severities, including unknown ones."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from deltaloom.messages import KnownAlertSeverity
from service.alerts.severity import MOST_SEVERE_FIRST, known, rank

KNOWN = get_args(KnownAlertSeverity)


def test_the_three_are_in_order() -> None:
    """Order critical before warning before info."""
    assert set(MOST_SEVERE_FIRST) == set(KNOWN)
    assert sorted(KNOWN, key=rank) == ["critical", "warning", "info"]
    assert [known(each) for each in KNOWN] == list(KNOWN)


@given(st.text().filter(lambda word: word not in KNOWN))
def test_any_other_word_is_a_warning(word: str) -> None:
    """Treat an unknown severity as a warning."""
    assert known(word) == "warning"
    assert rank(word) == rank("warning")
