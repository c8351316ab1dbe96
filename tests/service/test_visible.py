"""Test how text from outside is escaped for terminals and logs."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.visible import visible, visible_json
from tests.hidden import HIDDEN_CATEGORIES, hidden_in

TEXTS = st.text(st.characters(), max_size=60)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Zürich 日本 👩", "plain, Zürich 日本 👩"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\nc\td\x7f", "a\\rb\\nc\\td\\x7f"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\ud83d", "\\ud83d"),
        ("\u2028", "\\u2028"),
        ("resp\u200b_\u2060\ufeff\xad", "resp\\u200b_\\u2060\\ufeff\\xad"),
        ("resp\ufe0f\u3164", "resp\\ufe0f\\u3164"),
        ("resp\U000e0041", "resp\\U000e0041"),
        ("👩\u200d👧", "👩\\u200d👧"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """Escape control and invisible characters, which could change the terminal or make two ids look alike."""
    assert visible(text) == shown


def test_every_character_that_cannot_be_seen_is_escaped() -> None:
    """Escape all hidden characters of this Unicode version."""
    every = map(chr, range(sys.maxunicode + 1))
    hidden = [each for each in every if unicodedata.category(each) in HIDDEN_CATEGORIES]
    assert [each for each in hidden if visible(each) == each or hidden_in(visible_json(each))] == []


@given(TEXTS)
def test_no_hidden_character_is_left(text: str) -> None:
    """Leave no hidden character, and leave escaped text unchanged when it is escaped again."""
    assert hidden_in(visible(text)) == set()
    assert visible(visible(text)) == visible(text)


@given(TEXTS)
def test_json_keeps_its_value(text: str) -> None:
    """Escape hidden characters in JSON without changing its value."""
    written = visible_json(json.dumps(text, ensure_ascii=False))
    # JSON readers combine a high and a low surrogate into one character.
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert json.loads(written) == expected
    assert hidden_in(written) == set()
