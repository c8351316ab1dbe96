"""Test refusals and their alerts."""

from __future__ import annotations

import pytest

from deltaloom.events import RefusalDelta, RefusalDone
from deltaloom.messages import AssembledText, ModerationAlert
from handlers.core.effects import Closing, ContextValues, Fragment, Origin, Rank, UnattributableEventError
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.outputs import time_of
from handlers.core.routing import Opening
from handlers.refusal import finished, handler, on_delta, on_done, opened

ORIGIN = Origin(Arrival(EntryId(1_700_000_000_000, 0), 0), "resp_1")
PART = PartKey(StreamKey("response", "resp_1"), 1, 2, "refusal")
DELTA = RefusalDelta(
    type="response.refusal.delta",
    delta="I'm",
    item_id="it_1",
    output_index=1,
    content_index=2,
    sequence_number=7,
)
DONE = RefusalDone(
    type="response.refusal.done", refusal="I'm sorry", item_id="it_1", output_index=1, content_index=2
)


def test_a_delta_is_a_fragment() -> None:
    """Turn a delta into a fragment."""
    assert list(on_delta(DELTA, ORIGIN)) == [Fragment(PART, "I'm", 7, "it_1")]


def test_done_closes_with_the_whole_text() -> None:
    """Turn a `.done` into a closing."""
    assert list(on_done(DONE, ORIGIN)) == [Closing(PART, Rank.DONE, "I'm sorry", "it_1")]


def test_without_a_response_id_the_item_is_the_key() -> None:
    """Use the item id if there is no response id."""
    key = StreamKey("item", "it_1")
    assert next(iter(on_delta(DELTA, ORIGIN._replace(response_id=None)))).part.stream_key == key


def test_event_without_any_id_is_refused() -> None:
    """Refuse an event without any id. Otherwise unrelated refusals would be joined."""
    with pytest.raises(UnattributableEventError):
        list(on_delta(DELTA.model_copy(update={"item_id": None}), ORIGIN._replace(response_id=None)))


def test_opened_alert_has_identity_and_context() -> None:
    """Fill the opened alert with the identity and the context."""
    context = ContextValues(tenant="acme", model="m-1")
    alert = opened(Opening(PART, "I'm", "it_1", context, 1_700_000_000_000))
    assert alert == ModerationAlert(
        type="deltaloom.refusal.opened",
        id=PART.digest("opened"),
        kind="refusal",
        response_id="resp_1",
        item_id="it_1",
        output_index=1,
        content_index=2,
        text="I'm",
        severity="warning",
        tenant="acme",
        model="m-1",
        raised_at=time_of(1_700_000_000_000),
    )
    assert (alert.status, alert.integrity, alert.reason) == (None, None, None)


def test_finished_alert_has_text_and_status() -> None:
    """Fill the finished alert with the text and its status, under its own id."""
    text = AssembledText(
        id=PART.digest("text"),
        kind="refusal",
        response_id="resp_1",
        item_id="it_1",
        output_index=1,
        content_index=2,
        text="I'm sorry",
        status="incomplete",
        reason="content_filter",
        integrity="unverified",
        delta_count=2,
        duplicate_count=0,
        started_at=time_of(1_700_000_000_000),
        finished_at=time_of(1_700_000_001_000),
        tenant="acme",
    )
    alert = finished(text)
    shared = set(ModerationAlert.model_fields) & set(AssembledText.model_fields) - {"id", "type"}
    assert alert.model_dump(include=shared) == text.model_dump(include=shared)
    assert alert.type == "deltaloom.refusal.finished"
    assert alert.raised_at == text.finished_at
    assert len({alert.id, text.id, PART.digest("opened")}) == 3
    assert alert.id == finished(text).id


def test_handler_takes_refusals_only() -> None:
    """Handle refusals only, with both alerts."""
    assert {route.event_type for route in handler.routes} == {
        "response.refusal.delta",
        "response.refusal.done",
    }
    assert handler.kinds == {"refusal"}
    assert (handler.opened, handler.finished) == (opened, finished)
