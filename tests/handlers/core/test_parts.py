"""Test the functions that make fragments and closings of parts."""

from __future__ import annotations

import pytest

from deltaloom.events import OutputTextDone, ReasoningSummaryTextDone
from handlers.core.effects import Checksum, Closing, Origin, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.parts import closing

ORIGIN = Origin(Arrival(EntryId(1, 0), 0), "resp_1")
PART = PartKey(StreamKey("response", "resp_1"), 1, 2, "output_text")
SHA256 = "0123456789ABCDEF" * 4


def done(**fields: object) -> Closing:
    """Return the closing of a `.done` event with these fields."""
    event = OutputTextDone.model_validate(
        {"type": "response.output_text.done", "output_index": 1, "content_index": 2, **fields}
    )
    (found,) = closing(event, ORIGIN, "output_text", event.content_index, event.text)
    return found


def test_done_with_its_text() -> None:
    """Close a part with the event's text."""
    assert done(text="a", item_id="it") == Closing(PART, Rank.DONE, "a", "it")
    assert done(text="") == Closing(PART, Rank.DONE, "")


def test_done_with_a_checksum() -> None:
    """Close a part with the event's checksum, which stands for a long text."""
    expected = Closing(PART, Rank.DONE, "", None, Checksum(SHA256.lower(), 7))
    assert done(text_sha256=SHA256, text_bytes=7) == expected
    assert done(text_sha256=SHA256).checksum == Checksum(SHA256.lower(), None)


@pytest.mark.parametrize("text", ["a", ""])
def test_text_is_preferred_to_a_checksum(text: str) -> None:
    """Prefer the text to a checksum in the same event."""
    assert done(text=text, text_sha256=SHA256, text_bytes=7).checksum is None


@pytest.mark.parametrize(
    ("sent", "source"),
    [("producer", "producer"), ("provider", "provider"), ("new", "provider"), (None, "provider")],
)
def test_producer_may_be_the_source(sent: str | None, source: str) -> None:
    """Record the producer as source of a text that it wrote itself."""
    assert done(text="a", integrity_source=sent).source == source
    assert done(text_sha256=SHA256, integrity_source=sent).source == source


def test_summary_is_found_by_its_own_index() -> None:
    """Use `summary_index` for reasoning summaries. Otherwise the parts of a summary would be joined."""
    event = ReasoningSummaryTextDone(
        type="response.reasoning_summary_text.done", output_index=1, summary_index=3, text="a"
    )
    (found,) = closing(event, ORIGIN, "reasoning_summary", event.summary_index, event.text)
    assert found.part == PART._replace(content_index=3, kind="reasoning_summary")
