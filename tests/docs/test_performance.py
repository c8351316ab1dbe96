"""Test docs/performance.md against the benchmark's results."""

from __future__ import annotations

import json

from tests.docs.pages import ROOT

RESULTS = ROOT / "bench" / "results"
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_the_tables_are_the_benchmarks() -> None:
    """Show the rows of the benchmark's table."""
    table = (RESULTS / "table.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith(("| ours", "| 2 worker", "| 4 worker"))]
    assert len(rows) > 5
    for row in rows:
        assert row in PAGE, row


def test_the_results_are_whole() -> None:
    """Keep the raw results and the picture with the table."""
    results = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    assert results
    assert (RESULTS / "plot.png").read_bytes().startswith(b"\x89PNG")
