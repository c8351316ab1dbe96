"""The demo's figures."""

from __future__ import annotations

import pytest

from service.demo.summary import as_lines, percentile, summarised
from service.demo.wording import excerpt
from service.visible import visible
from tests.service.demo.perfect import LATENCY_MS, RINGS_AFTER_MS, perfect, sent


def test_summary_counts_what_came() -> None:
    """The summary would not agree with what was seen."""
    lines = as_lines(summarised(perfect()))
    assert lines[0].split() == ["events", "in", "838", "in", "680", "entries"]
    assert "alerts                  2 opened, 2 finished" in lines
    assert "webhook rang            4 times, verified" in lines
    assert "dead letters            1 malformed_json" in lines
    assert [line.split()[1:] for line in lines if line.startswith("reasoning ")] == [["2", "1", "1", "0"]]


def test_latencies_are_between_entry_ids() -> None:
    """The latencies would be something else than from XADD to output."""
    summary = summarised(perfect())
    assert set(summary.to_text_ms) == {LATENCY_MS}
    assert len(summary.to_text_ms) == 10, "one for each text that an entry closed, so not for the abandoned"
    assert list(summary.to_alert_ms) == [LATENCY_MS] * 2
    assert list(summary.to_webhook_ms) == [RINGS_AFTER_MS] * 2


def test_summary_of_nothing_can_be_said() -> None:
    """A worker that gives nothing would end in a traceback."""
    assert as_lines(summarised(sent(until=-1)))[-1].split() == ["first", "delta", "to", "webhook", "-", "-"]


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 5), (90, 9), (91, 10), (99, 10), (100, 10)])
def test_percentile_is_the_nearest_rank(percent: int, value: int) -> None:
    """p99 would be a value that was never measured, or too small a one."""
    assert percentile(range(1, 11), percent) == value


def test_texts_are_escaped_and_shortened() -> None:
    """A line could break, or a terminal obey it."""
    assert visible("a\x1b[31mb\tc\nd", keep="\n") == "a\\x1b[31mb\\tc\nd"
    assert excerpt("one\n\ntwo  three", 9) == "one two…"
    assert excerpt("short", 9) == "short"
