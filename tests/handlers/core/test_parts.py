"""Fragments and closings of parts, as nearly every handler makes them."""

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
    """Return what a `.done` closes."""
    event = OutputTextDone.model_validate(
        {"type": "response.output_text.done", "output_index": 1, "content_index": 2, **fields}
    )
    (found,) = closing(event, ORIGIN, "output_text", event.content_index, event.text)
    return found


def test_done_with_its_text() -> None:
    """Otherwise a text would not be closed with what its provider says it is."""
    assert done(text="a", item_id="it") == Closing(PART, Rank.DONE, "a", "it")
    assert done(text="") == Closing(PART, Rank.DONE, "")


def test_done_with_a_checksum() -> None:
    """Otherwise a long text that is not sent again could not be verified."""
    expected = Closing(PART, Rank.DONE, "", None, Checksum(SHA256.lower(), 7))
    assert done(text_sha256=SHA256, text_bytes=7) == expected
    assert done(text_sha256=SHA256).checksum == Checksum(SHA256.lower(), None)


@pytest.mark.parametrize("text", ["a", ""])
def test_text_goes_before_the_checksum_beside_it(text: str) -> None:
    """Otherwise a text that is there would be doubted because of a checksum of something else."""
    assert done(text=text, text_sha256=SHA256, text_bytes=7).checksum is None


@pytest.mark.parametrize(
    ("said", "source"),
    [("producer", "producer"), ("provider", "provider"), ("new", "provider"), (None, "provider")],
)
def test_producer_may_say_that_it_wrote_the_text(said: str | None, source: str) -> None:
    """Otherwise a text that its producer made up would pass for the provider's own."""
    assert done(text="a", integrity_source=said).source == source
    assert done(text_sha256=SHA256, integrity_source=said).source == source


def test_summary_is_found_by_its_own_index() -> None:
    """Otherwise the parts of a summary would be joined."""
    event = ReasoningSummaryTextDone(
        type="response.reasoning_summary_text.done", output_index=1, summary_index=3, text="a"
    )
    (found,) = closing(event, ORIGIN, "reasoning_summary", event.summary_index, event.text)
    assert found.part == PART._replace(content_index=3, kind="reasoning_summary")
