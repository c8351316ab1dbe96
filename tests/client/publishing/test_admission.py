"""Test which events are kept, merged, reduced and dropped, without a thread or a server."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.publishing.admission import Admission, PartNumbers, ResponseQueue
from deltaloom.publishing.books import NAMED_LOSSES, Books
from deltaloom.publishing.freezing import TakenEvents, freeze_all
from deltaloom.publishing.values import bytes_of, reduced
from tests.client.publishing.streams_of_events import balance, completed, delta, done, texts_of

Event = dict[str, Any]
FIRST_NUMBER = 1_000_000


def admission_of(budget: int = 1 << 20, event_bytes: int = 1 << 20, share: float = 1.0) -> Admission:
    """Return an admission without events."""
    return Admission(Books(), budget, share, event_bytes, lambda: FIRST_NUMBER)


def queue_of(response_id: str = "resp_1") -> ResponseQueue:
    """Return a queue without events."""
    return ResponseQueue(response_id, "deltaloom:deltas", {})


def publish(admission: Admission, queue: ResponseQueue) -> list[Event]:
    """Freeze what waits, confirm it, and return the published events."""
    books = admission.books
    lost = books.lost.pop(queue.response_id, 0) if queue.waiting else 0
    entries, bad = freeze_all([TakenEvents(queue, queue.take(), lost, {})])
    for each, count in bad:
        books.drop("not_json", each.response_id, count)
    events = []
    for entry in entries:
        books.published += entry.published
        books.merged += entry.merged
        admission.release(queue, entry.delta_bytes, entry.frame_bytes)
        events += json.loads(entry.fields["event"])
    admission.with_events.pop(queue, None)
    return events


def admit(admission: Admission, queue: ResponseQueue, *events: Any) -> None:
    """Admit events of one offer, as the publisher does."""
    admission.admit_all(queue, events)


KINDS = ("refusal", "reasoning", "output_text")
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("delta"),
            st.integers(0, 1),
            st.sampled_from(KINDS),
            st.text(st.characters(codec=None), min_size=1, max_size=40),
        ),
        st.tuples(st.just("done"), st.integers(0, 1), st.sampled_from(KINDS), st.just("x" * 300)),
        st.tuples(st.sampled_from(["publish", "make_room"]), st.integers(0, 1), st.just(""), st.just("")),
    ),
    max_size=120,
)


@given(STEPS, st.sampled_from([6_000, 20_000, 1 << 20]), st.booleans())
def test_merging_loses_nothing_and_every_event_has_one_end(
    steps: list[tuple[str, int, str, str]],
    budget: int,
    numbered: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    """Join the deltas of each part to the offered text, unless a loss was reported; count each event once."""
    admission = admission_of(budget)
    queues = [queue_of("resp_0"), queue_of("resp_1")]
    offered: list[list[Event]] = [[], []]
    published: list[list[Event]] = [[], []]
    numbers = [0, 0]
    for action, which, kind, text in steps:
        queue = queues[which]
        if action == "publish":
            published[which] += publish(admission, queue)
        elif action == "make_room":
            admission.make_room()
        else:
            number = numbers[which]
            numbers[which] += 1
            event = delta(kind, text, number) if action == "delta" else done(kind, text, number)
            offered[which].append(event)
            admission.admit(
                queue, event if numbered else {k: event[k] for k in event if k != "sequence_number"}
            )
        assert admission.delta_bytes <= admission.delta_reserve
        assert admission.frame_bytes <= admission.frame_reserve
        assert balance(admission.books.snapshot(0)) == 0
    for which, queue in enumerate(queues):
        published[which] += publish(admission, queue)
        reported = sum(each["dropped"] for each in published[which] if each["type"].endswith(".loss"))
        unreported = admission.books.lost.get(queue.response_id, 0)
        arrived = [each for each in published[which] if not each["type"].endswith(".loss")]
        if reported + unreported == 0:
            assert texts_of(arrived) == {
                part: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
                for part, text in texts_of(offered[which]).items()
            }
        assert (queue.bytes, queue.frame_bytes) == (0, 0)
    counters = admission.books.snapshot(admission.delta_bytes + admission.frame_bytes)
    assert counters.seen == sum(map(len, offered))
    assert (counters.waiting, counters.waiting_bytes) == (0, 0)
    assert counters.published == sum(
        not each["type"].endswith(".loss") for events in published for each in events
    )


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=60))
def test_repeats_and_late_deltas_never_change_a_text_unnoticed(numbers: list[tuple[int, bool]]) -> None:
    """Give the text of the distinct deltas, in order, for any order and any repeats, or report a loss."""
    admission, queue = admission_of(), queue_of()
    offered, published = [], []
    for number, publishes in numbers:
        offered.append(delta("reasoning", f"<{number}>", number))
        admit(admission, queue, offered[-1])
        if publishes:
            published += publish(admission, queue)
    published += publish(admission, queue)
    arrived = [event for event in published if not event["type"].endswith(".loss")]
    if len(arrived) == len(published) and not admission.books.lost:
        assert texts_of(arrived) == texts_of(offered)


def test_merged_delta_has_the_first_number_and_no_fields_of_one_delta() -> None:
    """Merge adjacent deltas into the first, without the attributes that describe only that one."""
    admission, queue = admission_of(), queue_of()
    admit(admission, queue, delta("reasoning", "a", 4) | {"obfuscation": "zz", "logprobs": [1]})
    admit(admission, queue, delta("reasoning", "b", 5), delta("reasoning", "c", 6))
    assert publish(admission, queue) == [delta("reasoning", "abc", 4)]
    assert admission.books.snapshot(0).merged == 2


@pytest.mark.parametrize(
    "between",
    [
        done("output_text", "x", 2, output_index=5),
        {"type": "response.created", "sequence_number": 2},
        {"type": "response.web_search_call.searching", "sequence_number": 2},
    ],
)
def test_deltas_are_not_merged_across_another_event(between: Event) -> None:
    """Keep the order of deltas and other events."""
    admission, queue = admission_of(), queue_of()
    events = [delta("reasoning", "a", 1), between, delta("reasoning", "b", 3)]
    admit(admission, queue, *events)
    assert publish(admission, queue) == events


def test_deltas_of_two_parts_in_turn_are_merged() -> None:
    """Merge the deltas of two choices that come in turn."""
    admission, queue = admission_of(), queue_of()
    for number in range(6):
        admit(admission, queue, delta("reasoning", str(number), number, output_index=number % 2))
    assert publish(admission, queue) == [
        delta("reasoning", "024", 0, output_index=0),
        delta("reasoning", "135", 1, output_index=1),
    ]


def test_a_delta_that_comes_late_is_not_overtaken_by_a_merged_one() -> None:
    """Do not merge across a gap in the numbers, where a late delta may belong."""
    admission, queue = admission_of(), queue_of()
    for number in (0, 1, 3, 4):
        admit(admission, queue, delta("reasoning", str(number), number))
    events = publish(admission, queue)
    assert [event["delta"] for event in events] == ["01", "34"]


def test_repeat_of_a_merged_delta_is_dropped_and_reported() -> None:
    """Drop a delta that may be part of a merged one, where no worker would recognise it."""
    admission, queue = admission_of(), queue_of()
    admit(admission, queue, *(delta("reasoning", word, number) for number, word in enumerate("abc")))
    admit(admission, queue, delta("reasoning", "b", 1))
    assert [event.get("delta") for event in publish(admission, queue)] == [None, "abc"]
    assert admission.books.dropped == {"repeated": 1}


def test_parts_that_count_from_zero_are_all_kept() -> None:
    """Keep and merge the deltas of each part if a server numbers each of them from 0."""
    admission, queue = admission_of(), queue_of()
    for part in range(3):
        admit(admission, queue, *(delta("reasoning", f"{n}", n, output_index=part) for n in range(4)))
    assert [event["delta"] for event in publish(admission, queue)] == ["0123"] * 3
    assert admission.books.dropped == {}


def test_repeats_before_a_merge_are_left_to_the_worker() -> None:
    """Publish repeats, and merge no more, in a stream whose numbers come twice."""
    admission, queue = admission_of(), queue_of()
    events = [delta("reasoning", "a", 0), delta("reasoning", "a", 0), delta("reasoning", "b", 1)]
    admit(admission, queue, *events)
    admit(admission, queue, delta("reasoning", "c", 2))
    assert publish(admission, queue) == [*events, delta("reasoning", "c", 2)]


def test_events_without_numbers_get_numbers_of_the_publisher() -> None:
    """Number a stream without numbers, so that a retry is recognised. Numbers go on in the next batch."""
    admission, queue = admission_of(), queue_of()
    admit(admission, queue, delta("reasoning", "a", None), {"type": "response.created"})
    first = publish(admission, queue)
    admit(admission, queue, delta("reasoning", "a", None))
    numbers = [event["sequence_number"] for event in [*first, *publish(admission, queue)]]
    assert numbers == [FIRST_NUMBER, FIRST_NUMBER + 1, FIRST_NUMBER + 2]


def test_delta_without_a_number_among_numbered_ones_is_dropped_and_reported() -> None:
    """Drop an unnumbered delta of a numbered stream: a repeat of its part would no longer be recognised."""
    admission, queue = admission_of(), queue_of()
    admit(admission, queue, delta("reasoning", "a", 0), delta("reasoning", "b", None))
    loss, kept = publish(admission, queue)
    assert loss == {"type": "deltaloom.producer.loss", "response_id": "resp_1", "dropped": 1}
    assert kept == delta("reasoning", "a", 0)


def test_values_are_dropped_in_their_order() -> None:
    """Drop answers first, then reasoning, then refusals, but never the first delta of a refusal."""
    admission, queue = admission_of(budget=40_000), queue_of()
    queue.parts.update(dict.fromkeys(range(64), PartNumbers()))  # no part is merged
    word = "w" * 100
    for number in range(300):
        kind = KINDS[number % 3]
        admit(admission, queue, delta(kind, word, number, output_index=KINDS.index(kind)))
        if number % 30 == 0:
            admission.make_room()
    kept = [waiting.event["type"] for waiting in queue.waiting]
    assert kept[0] == "response.refusal.delta"
    assert kept.count("response.refusal.delta") > kept.count("response.output_text.delta")
    assert kept.count("response.refusal.delta") > kept.count("response.reasoning_text.delta")
    assert set(admission.books.dropped) == {"over_budget"}


def test_first_delta_of_a_refusal_is_kept_when_deltas_have_no_room() -> None:
    """Keep the first delta of a refusal in the reserve of the closings: it raises the alert."""
    admission, queue = admission_of(budget=20_000), queue_of()
    queue.parts.update(dict.fromkeys(range(64), PartNumbers()))  # no part is merged
    admit(admission, queue, *(delta("reasoning", "w" * 100, number) for number in range(100)))
    admit(admission, queue, delta("refusal", "I", 100), delta("refusal", "'m", 101))
    assert next(w.event["delta"] for w in queue.waiting if "refusal" in w.event["type"]) == "I"
    assert queue in admission.urgent


def test_closing_gets_a_checksum_when_closings_have_little_room() -> None:
    """Send the checksum and the size of a closing's text if the reserve is nearly full."""
    admission, queue = admission_of(budget=16_000), queue_of()
    text = "é" * 3_000
    admit(admission, queue, done("reasoning", text, 1))
    (event,) = publish(admission, queue)
    data = text.encode()
    assert event == {
        "type": "response.reasoning_text.done",
        "output_index": 0,
        "content_index": 0,
        "sequence_number": 1,
        "text_sha256": hashlib.sha256(data).hexdigest(),
        "text_bytes": len(data),
    }
    counters = admission.books.snapshot(admission.delta_bytes + admission.frame_bytes)
    assert (counters.reduced, counters.published, counters.dropped) == (1, 1, {})


def test_end_without_room_leaves_out_its_copy_and_reports_it() -> None:
    """Keep the status of an end whose output does not fit, and report that the copy was left out."""
    admission, queue = admission_of(budget=16_000), queue_of()
    event = completed(7)
    event["response"] |= {"model": "m", "output": [{"type": "message", "content": "x" * 5_000}]}
    admit(admission, queue, event)
    loss, end = publish(admission, queue)
    assert loss["type"] == "deltaloom.producer.loss"
    assert end["response"] == {"status": "completed", "model": "m"}


def test_response_without_room_for_its_closings_is_dropped_as_a_whole() -> None:
    """Drop a whole response, and report all its events, if not even the reduced closings fit."""
    admission, queue = admission_of(budget=8_000), queue_of()
    admit(admission, queue, delta("reasoning", "a", 0))
    admit(admission, queue, *(done("reasoning", "text", number, number) for number in range(1, 11)))
    admit(admission, queue, delta("reasoning", "b", 11))
    assert queue.is_gone
    assert publish(admission, queue) == []
    assert admission.books.dropped == {"response_dropped": 12}
    assert admission.delta_bytes + admission.frame_bytes == 0


def test_one_response_takes_only_its_share() -> None:
    """Leave room for others when one response floods."""
    admission = admission_of(budget=100_000, share=0.25)
    loud, quiet = queue_of("loud"), queue_of("quiet")
    loud.parts.update(dict.fromkeys(range(64), PartNumbers()))  # no part is merged
    admit(admission, loud, *(delta("output_text", "w" * 100, number) for number in range(500)))
    assert loud.bytes <= admission.delta_share
    admit(admission, quiet, delta("output_text", "w", 0))
    assert len(quiet.waiting) == 1


@pytest.mark.parametrize("odd", [None, 7, "text", [], b"bytes"])
def test_values_that_are_no_events_are_counted(odd: object) -> None:
    """Count a value that is not an event as invalid."""
    admission, queue = admission_of(), queue_of()
    admit(admission, queue, odd)
    assert admission.books.dropped == {"invalid": 1}


class Changing(dict[str, object]):
    """A dictionary that another thread changes while it is read."""

    def items(self) -> Any:
        """Raise what Python raises then."""
        raise RuntimeError("dictionary changed size during iteration")


@pytest.mark.parametrize("odd", [object(), Changing(a=1)], ids=["foreign", "changing"])
def test_event_that_json_cannot_express_costs_only_itself(odd: object) -> None:
    """Drop an event with a foreign object, or one that changes, and publish its neighbours."""
    admission, queue = admission_of(), queue_of()
    admit(admission, queue, delta("reasoning", "a", 0))
    admit(admission, queue, {"type": "response.created", "sequence_number": 1, "response": {"x": odd}})
    admit(admission, queue, delta("reasoning", "b", 2))
    assert [event["delta"] for event in publish(admission, queue)] == ["a", "b"]
    assert admission.books.dropped == {"not_json": 1}
    assert balance(admission.books.snapshot(0)) == 0


def test_halves_of_a_surrogate_pair_are_merged() -> None:
    """Publish both halves of a pair that two deltas divide."""
    admission, queue = admission_of(), queue_of()
    admit(admission, queue, delta("reasoning", "a\ud83d", 0), delta("reasoning", "\ude00b", 1))
    assert publish(admission, queue) == [delta("reasoning", "a😀b", 0)]


def test_checksum_of_a_text_is_that_of_its_utf_8() -> None:
    """Join halves of a pair before the checksum, as a worker does."""
    smaller = reduced(done("refusal", "\ud83d\ude00", 0))
    assert smaller is not None
    assert smaller["text_sha256"] == hashlib.sha256("😀".encode()).hexdigest()
    assert smaller["text_bytes"] == 4


class Measured(str):
    """A text that counts how often its size is asked for."""

    __slots__ = ()
    times = 0

    def __sizeof__(self) -> int:
        Measured.times += 1
        return super().__sizeof__()


@pytest.mark.parametrize("is_list", [True, False])
def test_measuring_an_event_is_bounded(*, is_list: bool) -> None:
    """Estimate a large event without visiting all its values."""
    texts = [Measured("word")] * 1_000_000
    event = {"type": "response.completed", "output": texts if is_list else dict(enumerate(texts))}
    Measured.times = 0
    assert bytes_of(event) > 100_000_000
    assert 0 < Measured.times <= 2_000


def test_long_names_count() -> None:
    """Count the names of an event's fields, which may be as long as its values."""
    event = {"type": "response.completed", "x" * 1_000_000: 1}
    assert bytes_of(event) > 1_000_000
    assert bytes_of({7: 1}) < 1_000


def test_losses_beyond_the_named_responses_are_counted_together() -> None:
    """Bound the loss report: name 1,024 responses, and count the events of the others."""
    books = Books()
    for number in range(NAMED_LOSSES + 10):
        books.drop("over_budget", f"resp_{number}", 2)
    assert (len(books.lost), books.unnamed) == (NAMED_LOSSES, 20)
    report = books.new_losses()
    assert report is not None
    assert report.dropped == {"over_budget": 2 * (NAMED_LOSSES + 10)}
    assert len(report.responses) == NAMED_LOSSES
    assert books.new_losses() is None
