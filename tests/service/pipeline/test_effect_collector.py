"""Test the effects of whole events on a batch: limits of a response, and reports that come twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom.messages import DeadLetter
from handlers import BUILT_IN
from handlers.core.effects import Note
from handlers.core.identity import StreamKey
from handlers.core.routing import RoutingTable
from service.bus.envelope import open_entry
from service.keys import BEYOND_LIMIT
from service.pipeline.batch import Batch
from service.pipeline.decoded_batch import DecodedBatch
from service.pipeline.event_router import EventRouter
from tests.streams import raw

if TYPE_CHECKING:
    from collections.abc import Collection

KEY = StreamKey("response", "resp_1")


def batch_of_events(*events: dict[str, Any], handlers: Collection[str] = BUILT_IN) -> Batch:
    """Return a batch with one array of events, which is read with the models and these handlers."""
    router = EventRouter(
        RoutingTable([BUILT_IN[name] for name in handlers]),
        open_entry,
        stream="deltas",
        max_event_bytes=9999,
        max_array_length=99,
        max_response_parts=2,
    )
    entry = raw(b"5-1", {b"event": json.dumps(events).encode(), b"response_id": b"resp_1"})
    return Batch(DecodedBatch.unread(router.rules, [entry]), router, now_ms=9, deliveries={})


@pytest.mark.parametrize(
    "event",
    [{"type": "response.refusal.delta", "delta": "x"}, {"type": "response.refusal.done", "refusal": "x"}],
    ids=["delta", "done"],
)
def test_events_of_parts_beyond_the_limit_are_left_out(event: dict[str, Any]) -> None:
    """Keep the first parts of a response, count the events of the others, and write one letter about them."""
    events = [{**event, "item_id": "m", "output_index": n, "content_index": 0} for n in range(5)]
    commit = batch_of_events(*events).commit
    assert [part.output_index for part in commit.responses[KEY].parts] == [0, 1]
    assert len(commit.counts[BEYOND_LIMIT]) == 3
    ((_, letter),) = commit.crowded.values()
    assert isinstance(letter, DeadLetter)
    assert json.loads(json.loads(letter.entry)["event"])["output_index"] == 2


def test_losses_of_one_batch_are_noted_once() -> None:
    """Note the first loss that a producer reports, and add up what it lost: thousands leave no more notes."""
    loss = {"type": "deltaloom.producer.loss"}
    commit = batch_of_events(loss, loss | {"dropped": 40}, loss).commit
    assert sum(commit.lost_events.values()) == 42
    assert list(commit.responses[KEY].notes.values()) == [Note(loss=True)]


def test_first_fallback_of_a_batch_is_noted() -> None:
    """Note the first change of the model alone."""
    changes = [{"type": "deltaloom.response.fallback", "from_model": name} for name in ("a", "b")]
    commit = batch_of_events(*changes).commit
    (note,) = commit.responses[KEY].notes.values()
    assert note.fallback is not None
    assert note.fallback.from_model == "a"


@pytest.mark.parametrize("handlers", [["refusal", "lifecycle"], ["reasoning", "lifecycle"]], ids=str)
def test_announced_text_of_a_kind_that_is_off_is_counted(handlers: list[str]) -> None:
    """Note a text that an event announces, or count the event if no handler wants texts of its kind."""
    event = {
        "type": "response.content_part.added",
        "item_id": "m",
        "output_index": 0,
        "content_index": 0,
        "part": {"type": "refusal", "refusal": "No."},
    }
    batch = batch_of_events(event, handlers=handlers)
    notes = [copy.text for note in batch.commit.responses[KEY].notes.values() for copy in note.announced]
    counted = any("response.content_part.added" in name for name in batch.commit.counts)
    assert (notes, counted) == ((["No."], False) if "refusal" in handlers else ([], True))
