"""Test that each regular expression of the service runs in linear time on any input."""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
import time
from typing import Any

import pytest

import service

SIZE = 20_000
BLANKS = [" ", "\t\n", "#", "\x1b"]
WORDS = [
    "a",
    "a ",
    "a=",
    "a.",
    "@a",
    "www.",
    "é",
    "😀",
    "https://",
    "https://a-",
    "Input ",
    '"type" ',
    "data ",
]
NUMBERS = ["1", "1-", "-1", "1:", "a-1-", "error=1"]
MARKS = ['"', '\\"', '""', "'", '"""', "\\", "[", "[]", "{"]
UNITS = [*BLANKS, *WORDS, *NUMBERS, *MARKS]


def patterns() -> dict[str, re.Pattern[Any]]:
    """Return all compiled patterns at module level in the service, by "module.name"."""
    found = {}
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if module.name != "service.__main__":
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    found[f"{module.name}.{name}"] = value
    return found


PATTERNS = patterns()


SEARCHED = {
    "service.visible._HIDDEN",
    "service.cli.event_source._LINE",
    "service.alerts.destinations.apprise_._STATUS",
    "service.alerts.destinations.apprise_._MARKUP",
    "service.alerts.destinations.apprise_._SECRET_PIECE",
}
"""Patterns that are searched for in a whole text. The others are matched at one position."""


def cost(name: str, text: str) -> float:
    """Return the minimum CPU time of two runs, in seconds, of applying a pattern to a text."""
    pattern = PATTERNS[name]
    given: Any = text.encode() if isinstance(pattern.pattern, bytes) else text
    best = math.inf
    for _ in range(2):
        began = time.process_time()
        if name in SEARCHED:
            pattern.findall(given)
        else:
            pattern.match(given)
            pattern.fullmatch(given)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_linear(name: str) -> None:
    """Bound the cost of four times the input. Otherwise one text, name or line could block for minutes."""
    for unit in UNITS:
        text = unit * (SIZE // len(unit)) + "\0"
        assert cost(name, text) < 8 * cost(name, text[: len(text) // 4] + "\0") + 0.02, unit


def test_all_patterns_are_looked_at() -> None:
    """Find at least the known patterns. Otherwise a pattern outside module level would go untested."""
    assert PATTERNS.keys() > SEARCHED
    assert len(PATTERNS) >= 20
