"""Test which data this process has sent, and therefore omits from the next commit."""

from __future__ import annotations

from handlers.core.effects import ContextValues
from handlers.core.identity import EntryId, StreamKey
from service.storage.sent_cache import ResponseSend, Sends, SentPart, SentResponse, SentStates

ACME = (ContextValues(tenant="acme"), False)
ACME_AND_MODEL = (ContextValues(tenant="acme", model="m"), False)


def at(ms: int) -> EntryId:
    """Return the id of an entry at this time, in milliseconds."""
    return EntryId(ms, 0)


def test_a_sent_context_is_known_and_an_earlier_one_is_new() -> None:
    """Omit a context that an earlier or the same entry sent, and send one of an even earlier entry."""
    sent = SentResponse("response:r", "state")
    assert not sent.knows({ACME: at(5)})
    sent.record({ACME: at(5)})
    assert sent.knows({ACME: at(5)})
    assert sent.knows({ACME: at(6)})
    assert not sent.knows({ACME: at(4)})
    sent.record({ACME: at(4)})
    assert sent.knows({ACME: at(4)})


def test_a_part_of_a_sent_context_is_known_and_further_values_are_new() -> None:
    """Omit a context that is part of a sent one, and send one with further values."""
    sent = SentResponse("response:r", "state")
    sent.record({ACME_AND_MODEL: at(5)})
    assert sent.knows({ACME: at(5)})
    assert not sent.knows({ACME: at(4)})
    assert not sent.knows({(ContextValues(traceparent="t"), False): at(6)})
    assert not sent.knows({(ContextValues(tenant="acme"), True): at(6)}), (
        "learned values have registers of their own"
    )


def test_an_empty_context_is_known() -> None:
    """Omit an empty context."""
    assert SentResponse("response:r", "state").knows({})


def test_values_that_change_with_each_event_are_bounded() -> None:
    """Bound the memory for values that change with each event, like `traceparent`."""
    sent = SentResponse("response:r", "state")
    traces = [(ContextValues(tenant="acme", traceparent=f"{number}"), False) for number in range(1, 1000)]
    sent.record({ACME: at(0)})
    for number, trace in enumerate(traces, 1):
        sent.record({trace: at(number)})
    assert len(sent._claims) <= 8  # noqa: SLF001 - the size of the cache
    assert all(sent.knows({trace: at(number)}) for number, trace in enumerate(traces, 1))
    assert not sent.knows({(ContextValues(traceparent="new"), False): at(0)})


def test_a_repeated_context_keeps_its_earliest_entry() -> None:
    """Keep the earliest entry of a repeated context. Otherwise later repeats would be sent again."""
    sent = SentResponse("response:r", "state")
    sent.record({ACME: at(4)})
    sent.record({ACME: at(9)})
    assert sent.knows({ACME: at(4)})
    assert sent.knows({(ContextValues(tenant="acme"), False): at(5)})


def named(item_id: str, entry: EntryId, *, ids_differ: bool = False) -> SentPart:
    """Return a part with this item id sent."""
    part = SentPart("0:0:refusal", "log")
    part.record_item_id(item_id, entry, ids_differ=ids_differ)
    return part


def test_a_part_without_item_ids_has_nothing_to_send() -> None:
    """Treat a missing item id as known. Otherwise producers without ids would always use the slow path."""
    part = SentPart("0:0:refusal", "log")
    assert part.has_item_id(None, at(5), ids_differ=False)
    part.record_item_id(None, at(5), ids_differ=False)
    assert not part.has_item_id("a", at(5), ids_differ=False)


def test_an_item_id_is_sent_until_its_earliest_entry_has_been() -> None:
    """Send an item id from an earlier entry, which decides the part's id."""
    part = named("a", at(5))
    assert part.has_item_id("a", at(5), ids_differ=False)
    assert part.has_item_id("a", at(6), ids_differ=False)
    assert not part.has_item_id("a", at(4), ids_differ=False)
    part.record_item_id("a", at(4), ids_differ=False)
    assert part.has_item_id("a", at(4), ids_differ=False)


def test_a_later_entry_does_not_replace_the_item_id() -> None:
    """Keep the earliest entry of an item id."""
    part = named("a", at(5))
    part.record_item_id("a", at(9), ids_differ=False)
    assert part.has_item_id("a", at(5), ids_differ=False)


def test_another_item_id_is_sent_once() -> None:
    """Send once that item ids differ. Otherwise a text could be finished too early."""
    part = named("a", at(5))
    assert not part.has_item_id("b", at(6), ids_differ=False)
    part.record_item_id("b", at(6), ids_differ=False)
    assert part.has_item_id("b", at(6), ids_differ=False)
    assert part.has_item_id("c", at(7), ids_differ=True)
    assert not part.has_item_id("b", at(4), ids_differ=False), "an earlier entry decides the item id"


def test_item_ids_that_differ_within_a_batch_are_sent_once() -> None:
    """Send once that ids differ within a batch, even if the first id is known."""
    part = named("a", at(5))
    assert not part.has_item_id("a", at(6), ids_differ=True)
    part.record_item_id("a", at(6), ids_differ=True)
    part.record_item_id("a", at(4), ids_differ=False)
    assert part.has_item_id("a", at(7), ids_differ=True), "an earlier entry does not take it back"
    assert named("a", at(5), ids_differ=True).has_item_id("b", at(6), ids_differ=False)


def test_a_repeated_item_id_is_not_a_difference() -> None:
    """Ignore a repeated item id. Otherwise the part would wait for the low-water mark."""
    part = named("a", at(5))
    part.record_item_id("a", at(6), ids_differ=False)
    assert not part.has_item_id("b", at(7), ids_differ=False)


def test_a_response_is_kept_until_it_is_forgotten() -> None:
    """Keep a response's state until `remove`, as after the server has lost it."""
    sent, key = SentStates(), StreamKey("response", "resp_1")
    assert sent.get(key) is None
    sent.record(Sends([ResponseSend(key, "response:resp_1", "state", {}, [])], [], [], 0.0))
    response = sent.get(key)
    assert response is not None
    assert (response.member, response.state) == ("response:resp_1", "state")
    sent.remove(key)
    assert sent.get(key) is None


def test_activity_of_a_forgotten_response_is_dropped() -> None:
    """Drop the activity of a response that was forgotten in the meantime, and never take activity back."""
    sent, key = SentStates(), StreamKey("response", "resp_1")
    sent.record(Sends([], [(key, 7)], [], 0.0))
    assert sent.get(key) is None
    sent.record(Sends([ResponseSend(key, "response:resp_1", "state", {}, [])], [(key, 9)], [], 0.0))
    sent.record(Sends([], [(key, 8)], [], 0.0))
    response = sent.get(key)
    assert response is not None
    assert response.activity_ms == 9
