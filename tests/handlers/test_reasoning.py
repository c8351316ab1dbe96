"""Test reasoning texts and reasoning summaries."""

from __future__ import annotations

from deltaloom.events import (
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
)
from handlers.core.effects import Closing, Fragment, Origin, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.reasoning import handler, on_summary_delta, on_summary_done, on_text_delta, on_text_done

ORIGIN = Origin(Arrival(EntryId(1, 0), 0), "resp_1")
KEY = StreamKey("response", "resp_1")


def test_text_is_counted_by_content_index() -> None:
    """Use `content_index` for reasoning."""
    part = PartKey(KEY, 1, 2, "reasoning")
    delta = ReasoningTextDelta(
        type="response.reasoning_text.delta", delta="so", output_index=1, content_index=2, sequence_number=3
    )
    done = ReasoningTextDone(
        type="response.reasoning_text.done", text="so it is", output_index=1, content_index=2, item_id="rs_1"
    )
    assert list(on_text_delta(delta, ORIGIN)) == [Fragment(part, "so", 3, None)]
    assert list(on_text_done(done, ORIGIN)) == [Closing(part, Rank.DONE, "so it is", "rs_1")]


def test_summary_is_counted_by_summary_index() -> None:
    """Use `summary_index` for summaries. Otherwise their parts would be joined."""
    part = PartKey(KEY, 1, 2, "reasoning_summary")
    delta = ReasoningSummaryTextDelta(
        type="response.reasoning_summary_text.delta", delta="so", output_index=1, summary_index=2
    )
    done = ReasoningSummaryTextDone(
        type="response.reasoning_summary_text.done", text="so it is", output_index=1, summary_index=2
    )
    assert list(on_summary_delta(delta, ORIGIN)) == [Fragment(part, "so", None, None)]
    assert list(on_summary_done(done, ORIGIN)) == [Closing(part, Rank.DONE, "so it is", None)]


def test_handler_takes_both_and_raises_no_alert() -> None:
    """Handle both kinds without alerts."""
    assert handler.kinds == {"reasoning", "reasoning_summary"}
    assert len(handler.routes) == 4
    assert (handler.opened, handler.finished) == (None, None)
