"""Test the search of logs and output for complaints and hidden characters."""

from __future__ import annotations

import pytest

from hostile.output import hidden_in, judge_lines
from tests.hidden import HIDDEN

AWAY = '{"event": "redis unavailable, retrying", "level": "warning", "error": "ConnectionError: no"}\n'
PAUSED = (
    '{"event": "paused", "destination": "odd", "until": "2026-05-04T12:%sZ", '
    '"timestamp": "2026-05-04T12:05:00Z"}\n'
)


@pytest.mark.parametrize("character", [each for each in HIDDEN if each != "\n"])
def test_hidden_characters_are_found(character: str) -> None:
    """Find each hidden character."""
    assert hidden_in(f"response=h.{character}x") == {character}


def test_visible_characters_are_accepted() -> None:
    """Accept any language, and escaped characters."""
    assert not hidden_in('{"response": "Größe 東京 🙂 \\u202e \\x1b"}')


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"event": "text finished"}\n', []),
        (AWAY, ["complaint"]),
        ("Traceback (most recent call last):\n", ["complaint"]),
        ('{"event": "batch failed", "exception": "Traceback: x"}\n', ["complaint"]),
        ("text finished response=\x1b[2J\n", ["raw characters"]),
        ("text finished response=\udcff\n", ["raw characters"]),
        (f"dead letter {'x' * 32_768}\n", ["long line"]),
        (PAUSED % "06:00", []),
        (PAUSED % "06:30", ["not tried again"]),
    ],
)
def test_lines_of_a_log(line: str, found: list[str]) -> None:
    """Judge each line by itself."""
    violations: list[str] = []
    judge_lines("worker-0.log", [line], lambda kind, _example: violations.append(kind))
    assert violations == found


def test_a_complaint_is_reported_with_its_cause() -> None:
    """Report the event and the error of a complaint, without the rest of the line."""
    examples: list[str] = []
    judge_lines("worker-0.log", [AWAY], lambda _kind, example: examples.append(example))
    assert examples == ["worker-0.log: 'redis unavailable, retrying: ConnectionError: no'"]
