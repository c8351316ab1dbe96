"""Test the figures in the demo's summary."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from demo.phrases import excerpt
from demo.summary import as_lines, as_tables, percentile, summarised
from demo.view import LEAST_WIDTH
from service.visible import visible
from tests.demo.perfect import LATENCY_MS, RINGS_AFTER_MS, perfect, sent


def test_summary_counts_outputs() -> None:
    """Count events, alerts, deliveries, dead letters and texts."""
    lines = as_lines(summarised(perfect()))
    assert lines[0].split() == ["events", "in", "1009", "in", "851", "entries"]
    assert "alerts                  3 opened, 3 finished" in lines
    assert "alerts about ends       2" in lines
    assert "webhook rang            8 times, verified" in lines
    assert "dead letters            1 malformed_json" in lines
    assert [line.split()[1:] for line in lines if line.startswith("reasoning ")] == [["5", "1", "1", "0"]]


def test_latencies_are_between_entry_ids() -> None:
    """Measure latencies between entry ids, from XADD to output."""
    summary = summarised(perfect())
    assert set(summary.to_text_ms) == {LATENCY_MS}
    assert len(summary.to_text_ms) == 16, "one for each text with a closing entry; abandoned texts have none"
    assert list(summary.to_alert_ms) == [LATENCY_MS] * 3
    assert list(summary.to_webhook_ms) == [RINGS_AFTER_MS] * 3


def test_summary_of_no_output_can_be_printed() -> None:
    """Print a summary of a run without output, instead of a traceback."""
    assert as_lines(summarised(sent(until=-1)))[-1].split() == ["first", "delta", "to", "webhook", "-", "-"]


@pytest.mark.parametrize("width", [LEAST_WIDTH, 79, 80, 120])
def test_tables_are_never_cut(width: int) -> None:
    """Show every cell whole, on one line, in every terminal that gets the tables."""
    out = StringIO()
    Console(file=out, width=width).print(as_tables(summarised(perfect()), width))
    shown = " ".join(out.getvalue().split())
    assert "…" not in shown
    assert "texts out verified repaired unverified redacted" in shown
    assert "reasoning summary 3 · · ·" in shown
    for line in (
        "events in 1009 in 851 entries",
        "alerts 3 opened, 3 finished",
        "webhook rang 8 times, verified",
    ):
        assert line in shown
    for line in ("closing event to text 3 ms 3 ms", "first delta to webhook 35 ms 35 ms"):
        assert line in shown


def test_lines_fit_a_narrow_terminal() -> None:
    """Keep the lines within 60 columns, since a terminal that is too low for the view gets them."""
    assert max(map(cell_len, as_lines(summarised(perfect())))) <= LEAST_WIDTH


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 5), (90, 9), (91, 10), (99, 10), (100, 10)])
def test_percentile_is_the_nearest_rank(percent: int, value: int) -> None:
    """Return the nearest rank: a measured value, at or above the given share."""
    assert percentile(range(1, 11), percent) == value


def test_texts_are_escaped_and_shortened() -> None:
    """Escape and shorten texts in the summary's lines."""
    assert visible("a\x1b[31mb\tc\nd", keep="\n") == "a\\x1b[31mb\\tc\nd"
    assert excerpt("one\n\ntwo  three", 9) == "one two…"
    assert excerpt("short", 9) == "short"
