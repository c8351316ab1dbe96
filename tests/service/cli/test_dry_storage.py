"""Test the storage of a dry run: it stores, refuses and settles as the storage of a worker does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from deltaloom.messages import AssembledText, DeadLetter, ModerationAlert
from handlers import BUILT_IN
from handlers.core.identity import EntryId, PartKey, StreamKey
from handlers.core.routing import RoutingTable
from service.bus.envelope import open_entry
from service.cli.dry_storage import DryStorage, ResponseOver
from service.pipeline.settling import settle
from service.ports.storage import Settlement
from service.settings import Settings
from tests.service.pipeline.model import batch_of

if TYPE_CHECKING:
    from service.pipeline.batch import Batch

T = TypeVar("T")
TABLE = RoutingTable(BUILT_IN.values())
KEY = StreamKey("response", "resp_1")
FIRST = PartKey(KEY, 0, 0, "refusal")
PLACE = {"output_index": 0, "content_index": 0, "item_id": "m"}
DELTA = {"type": "response.refusal.delta", "delta": "No.", **PLACE}
DONE = {"type": "response.refusal.done", "refusal": "No.", **PLACE}
OTHER = {"type": "response.refusal.done", "refusal": "Yes.", **PLACE}
COMPLETED = {"type": "response.completed", "response": {}}


def events(*given: dict[str, Any], begin: int = 1) -> Batch:
    """Return a batch with one entry for each event, from this millisecond on."""
    entries = [
        open_entry(f"{ms}-0".encode(), {b"event": json.dumps(event).encode(), b"response_id": b"resp_1"})
        for ms, event in enumerate(given, begin)
    ]
    return batch_of(entries, TABLE)


@pytest.fixture
def storage() -> DryStorage:
    """Return a storage with small limits."""
    return DryStorage(Settings(max_part_fragments=3, max_response_parts=2))


def of(storage: DryStorage, kind: type[T]) -> list[T]:
    """Return the outputs of one kind, in order."""
    return [each for each in storage.outputs if isinstance(each, kind)]


async def settled(storage: DryStorage) -> int:
    """Settle what a survey finds; return the number of texts written."""
    survey = await storage.survey(0)
    loaded = await storage.load(survey.ready)
    return await settle(storage, TABLE, loaded, survey.low_water, storage.replication_id)


async def test_too_many_fragments_of_a_part_are_refused(storage: DryStorage) -> None:
    """Store nothing of a batch that exceeds the limit of a part."""
    committed = await storage.commit(events(*[DELTA] * 4).commit)
    assert committed.overflowing == [FIRST]
    assert not committed.stored
    assert await storage.load([KEY]) == []


async def test_parts_beyond_the_limit_are_refused(storage: DryStorage) -> None:
    """Name the new parts that the response may not have any more."""
    await storage.commit(events(DELTA, {**DELTA, "output_index": 1}).commit)
    committed = await storage.commit(events({**DELTA, "output_index": 2}, begin=5).commit)
    assert committed.crowded == [PartKey(KEY, 2, 0, "refusal")]
    assert not committed.stored


async def test_letter_about_a_crowd_is_written_once(storage: DryStorage) -> None:
    """Write one dead letter for a response with too many parts, also after several batches."""
    await storage.commit(events(DELTA, {**DELTA, "output_index": 1}).commit)
    storage.outputs.clear()
    reports = []
    for begin in (5, 6):
        batch = events({**DELTA, "output_index": 2}, begin=begin)
        refused = await storage.commit(batch.commit)
        batch.leave_out(refused.crowded)
        reports.append(list((await storage.commit(batch.commit)).reported_crowds))
    assert reports == [[0], []]
    assert [type(each) for each in storage.outputs] == [DeadLetter]


async def test_late_deltas_are_counted_and_leave_the_text(storage: DryStorage) -> None:
    """Count a delta that comes after its text was finished, and open nothing for it."""
    await storage.commit(events(DELTA, DONE).commit)
    assert await settled(storage) == 1
    await storage.commit(events(DELTA, begin=5).commit)
    assert storage.counts["late"] == 1
    (loaded,) = await storage.load([KEY])
    assert loaded.state.open_parts == {}
    assert list(loaded.state.finished_parts) == [FIRST]


async def test_another_text_of_a_finished_part_needs_an_alert(storage: DryStorage) -> None:
    """Refuse another text without an alert, and write the alert once."""
    await storage.commit(events(DELTA, DONE).commit)
    await settled(storage)
    storage.outputs.clear()
    disputed: list[PartKey] = []
    for begin in (5, 6):
        batch = events(OTHER, begin=begin)
        refused = await storage.commit(batch.commit)
        for part, stored in refused.contradicted.items():
            batch.contradict(part, stored)
            disputed += (await storage.commit(batch.commit)).disputed_parts
    assert disputed == [FIRST]
    assert [each.type for each in of(storage, ModerationAlert)] == ["deltaloom.text.contradicted"]


async def test_settling_twice_writes_once(storage: DryStorage) -> None:
    """Write a text, its alerts and the end of its response once, although it is settled twice as read."""
    await storage.commit(events(DELTA, DONE, COMPLETED).commit)
    survey = await storage.survey(0)
    loaded = await storage.load(survey.ready)
    written = [
        await settle(storage, TABLE, loaded, survey.low_water, storage.replication_id) for _ in range(2)
    ]
    assert written == [1, 0]
    assert len(of(storage, AssembledText)) == 1
    assert [(each.stream_key, each.has_text) for each in of(storage, ResponseOver)] == [(KEY, True)]
    assert (await storage.survey(0)).ready == []


async def test_texts_that_differ_in_one_batch_are_disputed(storage: DryStorage) -> None:
    """Raise an alert with a text if two events of the same batch close it with different texts."""
    await storage.commit(events(DELTA, DONE, OTHER).commit)
    assert await settled(storage) == 1
    assert "deltaloom.text.contradicted" in [each.type for each in of(storage, ModerationAlert)]


async def test_final_copy_that_differs_is_disputed_once(storage: DryStorage) -> None:
    """Raise one alert if the final copy of a response has another text than the one that was written."""
    await storage.commit(events(DELTA, DONE).commit)
    await settled(storage)
    item = {"type": "message", "id": "m", "content": [{"type": "refusal", "refusal": "Yes."}]}
    await storage.commit(
        events({"type": "response.completed", "response": {"output": [item]}}, begin=5).commit
    )
    survey = await storage.survey(0)
    loaded = await storage.load(survey.ready)
    for _ in range(2):
        await settle(storage, TABLE, loaded, survey.low_water, storage.replication_id)
    types = [each.type for each in of(storage, ModerationAlert)]
    assert types.count("deltaloom.text.contradicted") == 1


async def test_a_piece_does_not_end_its_response(storage: DryStorage) -> None:
    """Keep a response waiting after the first piece of a settlement, and while a closing is unsettled."""
    await storage.commit(events(DELTA, DONE, COMPLETED).commit)
    (loaded,) = await storage.load([KEY])
    piece = Settlement(KEY, loaded.version, [], [], None, ended=True, partial=True)
    assert await storage.settle([piece], "") == []
    unsettled = Settlement(KEY, loaded.version, [], [], EntryId(2, 0), ended=True)
    assert await storage.settle([unsettled], "") == []
    assert (await storage.survey(0)).ready == [KEY]
    assert of(storage, ResponseOver) == []


async def test_a_response_that_is_set_aside_is_not_found_again(storage: DryStorage) -> None:
    """Count a response that cannot be written, and neither settle it nor give it up later."""
    await storage.commit(events(DELTA, DONE).commit)
    await storage.set_aside(KEY)
    storage.is_at_end = True
    survey = await storage.survey(0)
    assert (survey.ready, survey.idle) == ([], {})
    assert storage.counts["set_aside"] == 1


async def test_late_deltas_do_not_open_a_response_again(storage: DryStorage) -> None:
    """Leave a response ended if a delta of a finished text follows its end."""
    await storage.commit(events(DELTA, DONE, COMPLETED).commit)
    await settled(storage)
    await storage.commit(events(DELTA, begin=9).commit)
    storage.is_at_end = True
    survey = await storage.survey(0)
    assert (survey.ready, survey.idle) == ([], {})


async def test_copy_of_a_text_under_another_index_is_dropped(storage: DryStorage) -> None:
    """Write a text once if the event that ends its item has it under another index."""
    item = {"type": "message", "id": "m", "content": [{"type": "refusal", "refusal": "No."}]}
    ended = {"type": "response.output_item.done", "output_index": 1, "item": item}
    await storage.commit(events(DELTA, DONE, ended, COMPLETED).commit)
    await settled(storage)
    assert [text.output_index for text in of(storage, AssembledText)] == [0]
    (over,) = of(storage, ResponseOver)
    assert over.has_text
