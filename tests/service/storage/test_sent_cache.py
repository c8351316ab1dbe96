"""Tests of what this process sent to storage before, and so leaves out of the next commit."""

from __future__ import annotations

from handlers.core.effects import Context
from handlers.core.identity import EntryId, StreamKey
from service.storage.sent_cache import Told, ToldPart, ToldResponse

ACME = (Context(tenant="acme"), False)
ACME_AND_MODEL = (Context(tenant="acme", model="m"), False)


def at(ms: int) -> EntryId:
    """An entry of this time."""
    return EntryId(ms, 0)


def test_the_same_again_is_known_and_an_earlier_one_is_news() -> None:
    """The earliest entry that says something wins: one that comes late must reach the server."""
    told = ToldResponse("response:r", "state")
    assert not told.knows({ACME: at(5)})
    told.tell({ACME: at(5)})
    assert told.knows({ACME: at(5)})
    assert told.knows({ACME: at(6)})
    assert not told.knows({ACME: at(4)})
    told.tell({ACME: at(4)})
    assert told.knows({ACME: at(4)})


def test_less_than_was_told_is_known_and_more_is_news() -> None:
    """Entries of a response do not all say the same of it."""
    told = ToldResponse("response:r", "state")
    told.tell({ACME_AND_MODEL: at(5)})
    assert told.knows({ACME: at(5)})
    assert not told.knows({ACME: at(4)})
    assert not told.knows({(Context(traceparent="t"), False): at(6)})
    assert not told.knows({(Context(tenant="acme"), True): at(6)}), "learned is another register than said"


def test_nothing_said_is_known() -> None:
    """Most events of a producer without a context say nothing."""
    assert ToldResponse("response:r", "state").knows({})


def test_what_differs_in_each_event_takes_no_room() -> None:
    """Producers that say another `traceparent` with each event would fill a worker's memory."""
    told = ToldResponse("response:r", "state")
    traces = [(Context(tenant="acme", traceparent=f"{number}"), False) for number in range(1, 1000)]
    told.tell({ACME: at(0)})
    for number, trace in enumerate(traces, 1):
        told.tell({trace: at(number)})
    assert len(told._said) <= 8  # noqa: SLF001 - the room that it takes
    assert all(told.knows({trace: at(number)}) for number, trace in enumerate(traces, 1))
    assert not told.knows({(Context(traceparent="new"), False): at(0)})


def test_what_an_entry_says_twice_is_known_from_its_earliest_entry_on() -> None:
    """A later repeat would move the earliest entry forward, and what lies between would be sent again."""
    told = ToldResponse("response:r", "state")
    told.tell({ACME: at(4)})
    told.tell({ACME: at(9)})
    assert told.knows({ACME: at(4)})
    assert told.knows({(Context(tenant="acme"), False): at(5)})


def named(item_id: str, entry: EntryId, *, ids_differ: bool = False) -> ToldPart:
    """A part of which this item id was sent."""
    part = ToldPart("0:0:refusal", "log")
    part.tell_name(item_id, entry, ids_differ=ids_differ)
    return part


def test_a_part_without_item_ids_has_nothing_to_send() -> None:
    """Every chunk of a producer that sends no item ids would be taken for news."""
    part = ToldPart("0:0:refusal", "log")
    assert part.has_name(None, at(5), ids_differ=False)
    part.tell_name(None, at(5), ids_differ=False)
    assert not part.has_name("a", at(5), ids_differ=False)


def test_an_item_id_is_sent_until_its_earliest_entry_has_been() -> None:
    """`item_id` would be that of the faster worker, and not of the earliest entry."""
    part = named("a", at(5))
    assert part.has_name("a", at(5), ids_differ=False)
    assert part.has_name("a", at(6), ids_differ=False)
    assert not part.has_name("a", at(4), ids_differ=False)
    part.tell_name("a", at(4), ids_differ=False)
    assert part.has_name("a", at(4), ids_differ=False)


def test_a_later_entry_does_not_replace_the_item_id() -> None:
    """The next chunk would leave out an item id that storage never got."""
    part = named("a", at(5))
    part.tell_name("a", at(9), ids_differ=False)
    assert part.has_name("a", at(5), ids_differ=False)


def test_another_item_id_is_sent_once() -> None:
    """Storage would finish a text too early, unaware that its item ids differ; or be told each time."""
    part = named("a", at(5))
    assert not part.has_name("b", at(6), ids_differ=False)
    part.tell_name("b", at(6), ids_differ=False)
    assert part.has_name("b", at(6), ids_differ=False)
    assert part.has_name("c", at(7), ids_differ=True)
    assert not part.has_name("b", at(4), ids_differ=False), "an earlier entry decides the item id"


def test_item_ids_that_differ_within_a_batch_are_sent_once() -> None:
    """They may differ in one batch, the first of which has the id that storage knows."""
    part = named("a", at(5))
    assert not part.has_name("a", at(6), ids_differ=True)
    part.tell_name("a", at(6), ids_differ=True)
    part.tell_name("a", at(4), ids_differ=False)
    assert part.has_name("a", at(7), ids_differ=True), "an earlier entry does not take it back"
    assert named("a", at(5), ids_differ=True).has_name("b", at(6), ids_differ=False)


def test_one_item_id_is_no_difference() -> None:
    """A repeat of the same id would count as two, and the part's text would wait for the low-water mark."""
    part = named("a", at(5))
    part.tell_name("a", at(6), ids_differ=False)
    assert not part.has_name("b", at(7), ids_differ=False)


def test_a_response_is_kept_until_it_is_forgotten() -> None:
    """All of it would be sent with every batch; or left out, though the server has lost it."""
    told, key = Told(), StreamKey("response", "resp_1")
    response = ToldResponse("response:resp_1", "state")
    assert told.get(key) is None
    told.keep(key, response)
    assert told.get(key) is response
    told.forget(key)
    assert told.get(key) is None
