"""What the page on performance shows is what the bench wrote."""

from __future__ import annotations

import json

from tests.docs.pages import ROOT

RESULTS = ROOT / "bench" / "results"
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_the_tables_are_the_benchs() -> None:
    """A figure would be told that nobody measured, or one of another run than the rest."""
    table = (RESULTS / "table.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith(("| ours", "| 2 worker", "| 4 worker"))]
    assert len(rows) > 5
    for row in rows:
        assert row in PAGE, row


def test_the_results_are_whole() -> None:
    """The table would be there without the figures behind it, or without its picture."""
    results = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    assert results
    assert (RESULTS / "plot.png").read_bytes().startswith(b"\x89PNG")
