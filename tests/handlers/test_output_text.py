"""Test answer texts."""

from __future__ import annotations

from deltaloom.events import OutputTextDelta, OutputTextDone
from handlers.core.effects import Closing, Fragment, Origin, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.output_text import handler, on_delta, on_done

ORIGIN = Origin(Arrival(EntryId(1, 0), 0), "resp_1")
PART = PartKey(StreamKey("response", "resp_1"), 0, 0, "output_text")


def test_delta_and_done() -> None:
    """Turn a delta into a fragment and a `.done` into a closing."""
    delta = OutputTextDelta(type="response.output_text.delta", delta="4", output_index=0, content_index=0)
    done = OutputTextDone(type="response.output_text.done", text="42", output_index=0, content_index=0)
    assert list(on_delta(delta, ORIGIN)) == [Fragment(PART, "4", None, None)]
    assert list(on_done(done, ORIGIN)) == [Closing(PART, Rank.DONE, "42", None)]


def test_handler_takes_answers_and_raises_no_alert() -> None:
    """Handle answers without alerts."""
    assert handler.kinds == {"output_text"}
    assert {route.event_type for route in handler.routes} == {
        "response.output_text.delta",
        "response.output_text.done",
    }
    assert (handler.opened, handler.finished) == (None, None)
