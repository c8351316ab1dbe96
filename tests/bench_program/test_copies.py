"""Test the measurement of copies."""

from __future__ import annotations

import pytest

from bench import copies


def test_interval_of_a_median() -> None:
    """Return the order statistics that cover the median with 95 % probability."""
    assert copies.interval(range(30)) == (9, 20)
    assert copies.interval(range(6)) == (0, 5)
    assert copies.interval([2, 1, 3]) == (1, 3)


@pytest.mark.slow
def test_a_short_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Measure a few short streams, and publish each of their events."""
    monkeypatch.setattr("sys.argv", ["copies", "--rounds", "1", "--chunks", "5"])
    assert copies.main() == 0
    assert "faults {}" in capsys.readouterr().out
