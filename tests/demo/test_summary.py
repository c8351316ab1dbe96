"""Test the figures in the demo's summary."""

from __future__ import annotations

import pytest

from demo.phrases import excerpt
from demo.summary import as_lines, percentile, summarised
from service.visible import visible
from tests.demo.perfect import LATENCY_MS, RINGS_AFTER_MS, perfect, sent


def test_summary_counts_outputs() -> None:
    """Count events, alerts, deliveries, dead letters and texts."""
    lines = as_lines(summarised(perfect()))
    assert lines[0].split() == ["events", "in", "838", "in", "680", "entries"]
    assert "alerts                  2 opened, 2 finished" in lines
    assert "webhook rang            4 times, verified" in lines
    assert "dead letters            1 malformed_json" in lines
    assert [line.split()[1:] for line in lines if line.startswith("reasoning ")] == [["2", "1", "1", "0"]]


def test_latencies_are_between_entry_ids() -> None:
    """Measure latencies between entry ids, from XADD to output."""
    summary = summarised(perfect())
    assert set(summary.to_text_ms) == {LATENCY_MS}
    assert len(summary.to_text_ms) == 10, "one for each text with a closing entry; abandoned texts have none"
    assert list(summary.to_alert_ms) == [LATENCY_MS] * 2
    assert list(summary.to_webhook_ms) == [RINGS_AFTER_MS] * 2


def test_summary_of_no_output_can_be_printed() -> None:
    """Print a summary of a run without output, instead of a traceback."""
    assert as_lines(summarised(sent(until=-1)))[-1].split() == ["first", "delta", "to", "webhook", "-", "-"]


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 5), (90, 9), (91, 10), (99, 10), (100, 10)])
def test_percentile_is_the_nearest_rank(percent: int, value: int) -> None:
    """Return the nearest rank: a measured value, at or above the given share."""
    assert percentile(range(1, 11), percent) == value


def test_texts_are_escaped_and_shortened() -> None:
    """Escape and shorten texts in the summary's lines."""
    assert visible("a\x1b[31mb\tc\nd", keep="\n") == "a\\x1b[31mb\\tc\nd"
    assert excerpt("one\n\ntwo  three", 9) == "one two…"
    assert excerpt("short", 9) == "short"
