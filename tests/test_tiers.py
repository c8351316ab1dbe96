"""Tests of the line about tests that were not run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.tiers import not_run


def skipped(reason: str) -> pytest.TestReport:
    """Return the report of a skipped test."""
    where = ("tests/test_x.py", 1, f"Skipped: {reason}")
    return pytest.TestReport("tests/test_x.py::test_x", where, {}, "skipped", where, "call")


def test_no_line_when_all_were_run() -> None:
    """Otherwise each run would end with a line without information."""
    assert not_run(Counter(), []) is None


def test_tiers_and_missing_programs_are_one_line() -> None:
    """Otherwise a run that left tests out would be taken for a complete one."""
    reports = [skipped("needs Alertmanager (Debian: prometheus-alertmanager)")] * 3 + [
        skipped("another reason")
    ]
    assert not_run(Counter(slow=17, prove=1), reports) == (
        "not run: 1 prove (make prove), 17 slow (make test-all), "
        "3 that need Alertmanager (Debian: prometheus-alertmanager)"
    )
