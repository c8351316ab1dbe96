"""Test the rules of `handlers.core.response`: when a text is finished, and with which content."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from handlers.core.assembly import Assembly, StoredClosing, StoredFragment
from handlers.core.context import Registers, merge_context
from handlers.core.contradictions import Contradiction
from handlers.core.effects import Checksum, ContextValues, Copy, Ending, Note, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.response import IDLE_TIMEOUT, OPEN_LIMIT, FinishedPart, Resolution, ResponseEnd, resolve
from handlers.core.state import LowWater, ResponseState
from handlers.core.text import text_digest
from tests.strategies import log_of

if TYPE_CHECKING:
    from deltaloom.messages import Kind, Status
    from deltaloom.reasons import ReasonClass
    from handlers.core.part_log import PartLog

KEY = StreamKey("response", "resp_1")
ALL_STORED = LowWater(EntryId(1_000_000, 0))
PART = PartKey(KEY, 0, 0, "reasoning")
KNOWN = ContextValues(model="m-1", safety_identifier="u-1")


def at(ms: int, position: int = 0) -> Arrival:
    """Return the arrival of an event in an entry of this time, in milliseconds."""
    return Arrival(EntryId(ms, 0), position)


class Story:
    """A response that is built event by event; `ms` is the time of an event's entry."""

    def __init__(self, key: StreamKey = KEY, context: ContextValues = KNOWN) -> None:
        self.key = key
        self.registers: Registers = {}
        merge_context(self.registers, context, EntryId(1, 0))
        self.logs: dict[PartKey, tuple[list[StoredFragment], list[StoredClosing], list[str]]] = {}
        self.endings: dict[Arrival, Ending] = {}
        self.finished: dict[PartKey, str | None] = {}
        """The digests of finished parts' texts."""
        self.notes: dict[Arrival, Note] = {}

    def _log(
        self, part: PartKey, item_id: str | None
    ) -> tuple[list[StoredFragment], list[StoredClosing], list[str]]:
        log = self.logs.setdefault(part, ([], [], []))
        if item_id is not None:
            log[2].append(item_id)
        return log

    def _stored(self, part: PartKey) -> PartLog:
        fragments, closings, item_ids = self.logs[part]
        return log_of(fragments, closings, item_ids[0] if item_ids else None)

    def delta(
        self,
        ms: int,
        text: str,
        part: PartKey = PART,
        *,
        number: int | None = None,
        item_id: str | None = None,
        position: int = 0,
    ) -> Story:
        """Add a fragment."""
        self._log(part, item_id)[0].append(
            StoredFragment(at(ms, position), ms if number is None else number, text)
        )
        return self

    def closing(
        self,
        ms: int,
        text: str,
        rank: Rank = Rank.DONE,
        part: PartKey = PART,
        *,
        position: int = 0,
        item_id: str | None = None,
        note: Note | None = None,
    ) -> Story:
        """Close a part with a `.done`, or a copy."""
        self._log(part, item_id)[1].append(StoredClosing(at(ms, position), rank, text))
        if note is not None:
            self.notes[at(ms, position)] = note
        return self

    def loss(self, ms: int, position: int = 7) -> Story:
        """Report that the producer lost events."""
        self.notes[at(ms, position)] = Note(loss=True)
        return self

    def item_end(self, ms: int, output_index: int = 0) -> Story:
        """Add the end of an item, after its copies."""
        self.endings[at(ms, 8)] = Ending(self.key, output_index, "completed")
        return self

    def end(
        self,
        ms: int,
        status: Status = "completed",
        reason: str | None = None,
        copies: tuple[Copy, ...] = (),
        *,
        position: int = 9,
        why: tuple[ReasonClass | None, str | None, str | None] = (None, None, None),
    ) -> Story:
        """End the response; `why` is the reason's class, the provider's category and its explanation."""
        self.endings[at(ms, position)] = Ending(self.key, None, status, reason, copies, *why)
        return self

    def resolve(
        self, low_water: LowWater = ALL_STORED, idle_at_ms: int | None = None, why: str = IDLE_TIMEOUT
    ) -> Resolution:
        """Return the resolution at this low-water mark."""
        logs = {part: self._stored(part) for part in self.logs}
        state = ResponseState(self.key, self.registers, self.endings, logs, self.finished, self.notes)
        return resolve(state, low_water, refusing={REFUSAL.kind}, idle_at_ms=idle_at_ms, why=why)

    def only(self, low_water: LowWater = ALL_STORED, idle_at_ms: int | None = None) -> FinishedPart:
        """Return the only finished part."""
        (finished,) = self.resolve(low_water, idle_at_ms).finished
        return finished


def copy(text: str, position: int = 0, kind: Kind = "reasoning", item_id: str | None = None) -> Copy:
    """Return one text of a final copy."""
    return Copy(item_id, position, 0, kind, text)


# ----------------------------------------------------------------------------------------- closings of a part


def test_open_part_is_not_finished() -> None:
    """Leave a part open without a closing."""
    assert Story().delta(1, "a").resolve() == Resolution()


def test_done_closes_and_verifies() -> None:
    """Finish a part with its `.done`, verified by its deltas."""
    finished = Story().delta(1, "a", item_id="it").delta(2, "b").closing(3, "ab").only()
    assert finished == FinishedPart(
        PART,
        Assembly("ab", 2, 0, 1, 2),
        "completed",
        None,
        "verified",
        "it",
        KNOWN,
        1,
        3,
        integrity_source="provider",
    )


def test_authoritative_text_wins_over_the_deltas() -> None:
    """Use the authoritative text if the deltas differ, and report it as repaired."""
    finished = Story().delta(1, "a").closing(2, "ab").only()
    assert (finished.assembly.text, finished.integrity, finished.assembly.delta_count) == (
        "ab",
        "repaired",
        1,
    )


def test_a_text_that_came_whole_is_repaired() -> None:
    """Report a text without deltas as repaired."""
    finished = Story().closing(2, "ab").only()
    assert finished.assembly == Assembly("ab", 0, 0, None, None)
    assert (finished.integrity, finished.started_ms, finished.finished_ms) == ("repaired", 2, 2)


def test_halves_are_joined_before_they_are_compared() -> None:
    """Join surrogate halves before comparing."""
    finished = Story().delta(1, "\ud83d").delta(2, "\ude00").closing(3, "😀").only()
    assert (finished.assembly.text, finished.integrity) == ("😀", "verified")


def test_a_half_in_the_authoritative_text_is_repaired_too() -> None:
    """Replace a lone surrogate in the authoritative text."""
    finished = Story().delta(1, "a\ud83d").closing(3, "a\ud83d").only()
    assert (finished.assembly.text, finished.integrity) == ("a\ufffd", "verified")


def test_first_closing_entry_wins_and_later_ones_are_late() -> None:
    """Use the first closing. Otherwise a text could change after it was written."""
    story = Story().delta(1, "a").closing(2, "a").closing(3, "other").delta(4, "late").delta(5, "late")
    finished = story.only()
    assert (finished.assembly.text, finished.integrity, finished.finished_ms) == ("a", "verified", 2)
    assert finished.assembly.delta_count == 1


@pytest.mark.parametrize("first", Rank)
def test_within_an_array_the_first_text_wins(first: Rank) -> None:
    """Use the first text of an array, as for separate entries."""
    story = Story().delta(1, "a")
    for position, rank in enumerate([first, *reversed(Rank)]):
        story.closing(2, f"{position} by {rank.name}", rank, position=position)
    assert story.only().assembly.text == f"0 by {first.name}"


def test_within_an_event_the_better_source_wins() -> None:
    """Use the text of the best rank within one event."""
    story = Story().delta(1, "a")
    for rank in reversed(Rank):
        story.closing(2, f"by {rank.name}", rank)
    assert story.only().assembly.text == "by DONE"


def test_within_an_entry_an_empty_source_does_not_replace_a_lower_one() -> None:
    """Ignore an empty `.done` if a copy in the same entry has the text."""
    story = Story().closing(2, "", Rank.DONE).closing(2, "whole", Rank.CONTENT_PART, position=1)
    assert story.only().assembly.text == "whole"


def test_empty_closing_of_a_part_with_deltas_closes_it() -> None:
    """Close a part that has deltas with an empty `.done`, without erasing its text."""
    finished = Story().delta(1, "a").closing(2, "").only()
    assert (finished.assembly.text, finished.status, finished.integrity) == ("a", "completed", "unverified")


@pytest.mark.parametrize("delta", [None, ""])
def test_empty_closing_of_a_part_without_text_is_only_remembered(delta: str | None) -> None:
    """Hold an empty closing of an empty part, since a later copy may have the text."""
    story = Story().closing(2, "")
    if delta is not None:
        story.delta(1, delta)
    assert story.resolve().finished == []
    finished = story.closing(3, "whole", Rank.OUTPUT_ITEM).only()
    assert (finished.assembly.text, finished.finished_ms) == ("whole", 3)


def test_remembered_closing_makes_it_complete() -> None:
    """Report a part with an empty closing as complete when its response ends."""
    story = Story().closing(2, "").end(3, "incomplete", "max_output_tokens")
    assert story.only()[1:5] == (Assembly("", 0, 0, None, None), "completed", None, "unverified")


def test_status_of_an_empty_text_does_not_depend_on_the_schedule() -> None:
    """Give an empty text the same status whenever a worker looks."""
    seldom = Story().delta(1, "").item_end(2).end(3, "incomplete", "max_output_tokens")
    often = Story().delta(1, "").item_end(2)
    for arrival in often.resolve().applied_endings:
        del often.endings[arrival]
    assert often.end(3, "incomplete", "max_output_tokens").only() == seldom.only()


# ---------------------------------------------------------------------------------- ends of item and response


def test_end_of_its_item_closes_a_part() -> None:
    """Close a part at the end of its item, for servers without `.done`."""
    finished = Story().delta(1, "a").item_end(2).only()
    assert (finished.status, finished.integrity, finished.finished_ms) == ("completed", "unverified", 2)


def test_end_of_another_item_does_not() -> None:
    """Leave a part open at the end of another item."""
    assert Story().delta(1, "a").item_end(2, output_index=1).resolve().finished == []


def test_end_closes_only_what_began_before_it() -> None:
    """Ignore an end before the part's first event, since xAI and OpenRouter reuse positions."""
    story = Story().item_end(1).end(1, "failed").delta(2, "a")
    resolution = story.resolve()
    assert resolution.finished == []
    assert resolution.applied_endings == [at(1, 8), at(1, 9)]


def test_end_behind_the_first_delta_in_its_array_closes_it() -> None:
    """Close a part at an end that follows in the same array."""
    assert Story().delta(1, "a").item_end(1).only().finished_ms == 1


def test_end_before_the_first_delta_in_its_array_does_not() -> None:
    """Leave a part open at an end that precedes it in the same array."""
    story = Story().delta(1, "one", position=9).item_end(1)
    assert story.resolve().finished == []
    assert story.closing(2, "one two").only().assembly.text == "one two"


@pytest.mark.parametrize(
    ("status", "reason"),
    [("completed", None), ("incomplete", "max_output_tokens"), ("failed", "server_error")],
)
def test_end_of_the_response_gives_status_and_reason(status: Status, reason: str | None) -> None:
    """Use the ending's status and reason for an open text."""
    finished = Story().delta(1, "a").end(2, status, reason).only()
    assert (finished.status, finished.reason, finished.integrity) == (status, reason, "unverified")


def test_part_closed_by_its_own_is_complete_whatever_follows() -> None:
    """Report a closed part as complete, whatever its response's end."""
    assert Story().delta(1, "a").closing(2, "a").end(3, "failed", "x").only().status == "completed"
    assert Story().delta(1, "a").closing(2, "a").end(2, "failed", "x").only().status == "completed"
    assert Story().delta(1, "a").item_end(2).end(2, "failed", "x").only().status == "completed"


def test_first_of_two_ends_wins() -> None:
    """Use the first of two ends, as of `error` and `response.failed`."""
    resolution = Story().delta(1, "a").end(2, "failed", "rate_limit").end(3, "failed", "other").resolve()
    (finished,) = resolution.finished
    assert (finished.reason, finished.finished_ms) == ("rate_limit", 2)
    assert resolution.applied_endings == [at(2, 9), at(3, 9)]


def test_first_of_two_ends_in_one_entry_wins() -> None:
    """Use the first of two ends in one entry."""
    story = Story().delta(1, "a").end(2, "failed", "other", position=10).end(2, "failed", "rate_limit")
    assert story.only().reason == "rate_limit"


def test_response_has_ended_when_all_before_its_end_is_stored() -> None:
    """Report the response as ended only when all earlier entries are stored."""
    assert Story().end(1).resolve().ended
    assert not Story().item_end(1).resolve().ended
    assert not Story().end(5).resolve(LowWater(EntryId(5, 0))).ended


# --------------------------------------------------------------------------------------------- the final copy


def test_final_copy_is_authoritative() -> None:
    """Use the final copy as authoritative text."""
    finished = Story().delta(1, "a").end(2, copies=(copy("ab"),)).only()
    assert (finished.assembly.text, finished.integrity) == ("ab", "repaired")


def test_empty_final_copy_erases_nothing() -> None:
    """Keep the deltas' text if the final copy is empty."""
    finished = Story().delta(1, "a").end(2).only()
    assert (finished.assembly.text, finished.status, finished.integrity) == ("a", "completed", "unverified")


def test_final_copy_is_found_by_item_id_where_positions_differ() -> None:
    """Match the final copy by item id first, since some servers count items from 1."""
    first, second = PART._replace(output_index=1), PART._replace(output_index=2)
    story = Story().delta(1, "a", first, item_id="it_a").delta(2, "b", second, item_id="it_b")
    story.end(3, copies=(copy("a", 0, item_id="it_a"), copy("b", 1, item_id="it_b")))
    assert {(f.part, f.assembly.text, f.integrity) for f in story.resolve().finished} == {
        (first, "a", "verified"),
        (second, "b", "verified"),
    }


@pytest.mark.parametrize("item_id", [None, "new"])
def test_final_copy_is_found_by_position_where_ids_differ(item_id: str | None) -> None:
    """Match the final copy by position if the item ids are new."""
    second = PART._replace(output_index=1)
    story = Story().delta(1, "a", item_id="it_a").delta(2, "b", second, item_id="it_b")
    story.end(3, copies=(copy("a", 0, item_id=item_id), copy("b", 1, item_id=item_id)))
    assert {(f.part, f.assembly.text, f.integrity) for f in story.resolve().finished} == {
        (PART, "a", "verified"),
        (second, "b", "verified"),
    }


def test_final_copy_is_found_by_position_where_two_items_have_one_id() -> None:
    """Match the final copy by position if two items have one id, as from Ollama."""
    second = PART._replace(output_index=1)
    story = Story().delta(1, "a", item_id="it").delta(2, "b", second, item_id="it")
    story.end(3, copies=(copy("a", 0, item_id="it"), copy("b", 1, item_id="it")))
    assert {(f.part, f.assembly.text) for f in story.resolve().finished} == {(PART, "a"), (second, "b")}


def test_final_copy_is_found_by_position_where_a_neighbour_is_finished() -> None:
    """Match the final copy by position if one of two items with one id is finished."""
    second = PART._replace(output_index=1)
    story = Story().delta(2, "b", second, item_id="it")
    story.finished[PART] = text_digest("a")
    story.end(3, copies=(copy("a", 0, item_id="it"), copy("b", 1, item_id="it")))
    assert [(f.part, f.assembly.text) for f in story.resolve().finished] == [(second, "b")]


def test_final_copy_of_another_kind_is_not_taken() -> None:
    """Match the final copy only with a part of the same kind."""
    finished = Story().delta(1, "a").end(2, copies=(copy("ab", kind="refusal"),)).resolve().finished
    assert {(f.part.kind, f.assembly.text) for f in finished} == {("reasoning", "a"), ("refusal", "ab")}


def test_text_that_only_the_final_copy_has() -> None:
    """Finish a text that only the final copy has."""
    finished = Story().end(2, copies=(copy("a\ud83d", 1, item_id="it"),)).only()
    part = PART._replace(output_index=1)
    text = Assembly("a\ufffd", 0, 0, None, None)
    assert finished == FinishedPart(
        part, text, "completed", None, "repaired", "it", KNOWN, 2, 2, integrity_source="provider"
    )


@pytest.mark.parametrize("shown", ["open", "finished"])
def test_final_copy_adds_no_text_of_a_kind_that_was_shown(shown: str) -> None:
    """Add no text of a kind that the stream has shown, since positions may differ."""
    story = Story()
    if shown == "open":
        story.delta(1, "a", PART._replace(output_index=5))
    else:
        story.finished[PART._replace(output_index=5)] = text_digest("a")
    finished = story.end(2, copies=(copy("a", 0),)).resolve().finished
    assert [f.part.output_index for f in finished] == ([5] if shown == "open" else [])


def test_two_ends_with_a_final_copy_give_its_texts_once() -> None:
    """Finish the texts of two equal final copies once."""
    story = Story().end(2, copies=(copy("a"),)).end(3, copies=(copy("a"),))
    assert [f.assembly.text for f in story.resolve().finished] == ["a"]


# -------------------------------------------------------------------------------------------- uncertain texts


def test_closed_part_waits_for_the_low_water_mark() -> None:
    """Wait for the low-water mark. Otherwise a delta that another worker holds would be missing."""
    story = Story().delta(1, "a").closing(5, "a")
    resolution = story.resolve(LowWater(EntryId(5, 0)))
    assert (resolution.finished, resolution.unsettled_since) == ([], EntryId(5, 0))
    assert story.only(LowWater(EntryId(5, 1))).integrity == "verified"
    assert story.resolve(LowWater(EntryId(5, 1))).unsettled_since is None


def test_certain_text_does_not_wait_for_a_stuck_worker() -> None:
    """Finish a certain text while a worker is stuck."""
    story = Story().delta(1, "a").closing(5, "a")
    assert story.only(LowWater(EntryId(1, 0), stalled=True)).assembly.text == "a"
    assert story.resolve(LowWater(EntryId(1, 0), stalled=True)).unsettled_since is None


@pytest.mark.parametrize(
    "story",
    [
        Story().delta(1, "a").closing(5, "ab"),
        Story().delta(1, "a").closing(5, ""),
        Story().closing(5, "ab"),
        Story().delta(1, "a").item_end(5),
        Story().delta(1, "a").end(5, copies=(copy("a"),)),
        Story().delta(1, "a", number=7).delta(2, "b", number=7).closing(5, "ab"),
        Story(context=ContextValues(tenant="acme")).delta(1, "a").closing(5, "a"),
    ],
    ids=[
        "differs",
        "empty",
        "no deltas",
        "no text",
        "only in the final copy",
        "no numbers to trust",
        "no user is known",
    ],
)
def test_uncertain_text_waits_for_a_stuck_worker(story: Story) -> None:
    """Hold an uncertain text while a worker is stuck. Otherwise it could be cut off."""
    resolution = story.resolve(LowWater(EntryId(1, 0), stalled=True))
    assert (resolution.finished, resolution.unsettled_since) == ([], EntryId(5, 0))
    assert len(story.resolve().finished) == 1


def test_text_that_began_after_the_end_of_its_response_waits_for_a_stuck_worker() -> None:
    """Hold a text that began after its response's end, since the final copy may already contain it."""
    story = Story().end(2, copies=(copy("a"),)).delta(3, "a").closing(5, "a")
    resolution = story.resolve(LowWater(EntryId(1, 0), stalled=True))
    assert (resolution.finished, resolution.unsettled_since) == ([], EntryId(2, 0))
    assert story.only().integrity == "repaired"
    story = Story().delta(2, "a").closing(2, "a").end(2, copies=(copy("a"),))
    assert len(story.resolve(LowWater(EntryId(1, 0), stalled=True)).finished) == 1


def test_text_of_an_item_does_not_wait_for_context() -> None:
    """Finish an item's text without context, since no more will come."""
    key = StreamKey("item", "it")
    story = Story(key, ContextValues()).delta(1, "a", PART._replace(stream_key=key))
    story.closing(5, "a", part=PART._replace(stream_key=key))
    assert len(story.resolve(LowWater(EntryId(1, 0), stalled=True)).finished) == 1


def test_end_is_kept_until_all_before_it_are_stored() -> None:
    """Hold an end until all earlier entries are stored. Otherwise their parts would never be closed."""
    resolution = Story().end(5).resolve(LowWater(EntryId(5, 0)))
    assert (resolution.applied_endings, resolution.unsettled_since, resolution.ended) == (
        [],
        EntryId(5, 0),
        False,
    )
    resolution = Story().end(5).resolve(LowWater(EntryId(5, 1)))
    assert (resolution.applied_endings, resolution.unsettled_since, resolution.ended) == (
        [at(5, 9)],
        None,
        True,
    )


def test_earliest_uncertain_closing_is_reported() -> None:
    """Report the earliest uncertain closing, so that it is looked at in time."""
    other = PART._replace(content_index=1)
    story = Story().delta(1, "a").closing(7, "x").delta(2, "b", other).closing(4, "y", part=other).end(9)
    assert story.resolve(LowWater(EntryId(1, 0))).unsettled_since == EntryId(4, 0)
    assert story.resolve(LowWater(EntryId(5, 0))).unsettled_since == EntryId(7, 0)


def test_initial_low_water_mark_finishes_nothing() -> None:
    """Finish no text at the initial low-water mark."""
    assert Story().delta(1, "a").closing(5, "ab").resolve(LowWater()).finished == []


# -------------------------------------------------------------------------------------------- abandoned texts


def test_idle_part_is_given_up() -> None:
    """Finish an idle part as abandoned."""
    resolution = Story().delta(1, "a", item_id="it").delta(2, "b").resolve(idle_at_ms=500)
    assert resolution.finished == [
        FinishedPart(
            PART,
            Assembly("ab", 2, 0, 1, 2),
            "abandoned",
            "idle_timeout",
            "unverified",
            "it",
            KNOWN,
            1,
            500,
            reason_class="unknown",
        )
    ]
    assert resolution.ended


def test_idle_part_that_was_closed_is_complete() -> None:
    """Finish an idle part with an empty closing as complete."""
    finished = Story().closing(3, "").only(idle_at_ms=500)
    assert (finished.status, finished.reason, finished.finished_ms) == ("completed", None, 3)


def test_idle_response_does_not_give_up_uncertain_texts() -> None:
    """Hold an uncertain text of an idle response, since a dead worker may hold a delta of it."""
    story = Story().delta(1, "a").closing(5, "ab")
    assert story.resolve(LowWater(EntryId(1, 0)), idle_at_ms=500).finished == []
    assert story.only(idle_at_ms=500).status == "completed"


def test_reason_of_giving_up_is_recorded() -> None:
    """Record the reason of giving up: the limit or silence."""
    state = ResponseState(KEY, {}, {}, {PART: log_of([StoredFragment(at(1), 1, "a")])})
    (finished,) = resolve(state, ALL_STORED, idle_at_ms=500, why=OPEN_LIMIT).finished
    assert (finished.status, finished.reason) == ("abandoned", "open_limit")


def test_nothing_is_given_up_before_the_idle_timeout() -> None:
    """Leave a part open before the idle timeout."""
    assert not Story().delta(1, "a").resolve().ended


def test_ends_come_in_the_order_of_the_stream() -> None:
    """Return ends in stream order, each with the context before it."""
    story = Story(context=ContextValues()).end(7, "failed", "cyber_policy").end(3, "failed").delta(1, "a")
    merge_context(story.registers, ContextValues(model="early"), EntryId(2, 0))
    merge_context(story.registers, ContextValues(tenant="late"), EntryId(5, 0))
    assert story.resolve().ends == [
        ResponseEnd(KEY, "failed", None, ContextValues(model="early"), 3),
        ResponseEnd(KEY, "failed", "cyber_policy", ContextValues(model="early", tenant="late"), 7),
    ]


def test_uncertain_end_is_not_reported() -> None:
    """Return no end before all earlier entries are stored, and none of an item."""
    assert Story().end(7).resolve(LowWater(EntryId(7, 0))).ends == []
    assert Story().end(7).resolve(LowWater(EntryId(7, 0)), idle_at_ms=9).ends == []
    assert Story().item_end(7).resolve().ends == []


def test_abandoned_response_has_an_end() -> None:
    """Return an end for an abandoned response, unless it had one."""
    (end,) = Story().delta(1, "a").item_end(2).resolve(idle_at_ms=9).ends
    assert end == ResponseEnd(KEY, "abandoned", "idle_timeout", KNOWN, 9, "unknown")
    (end,) = Story().delta(1, "a").end(2, "incomplete", "content_filter").resolve(idle_at_ms=9).ends
    assert (end.status, end.at_ms) == ("incomplete", 2)


# ----------------------------------------------------------------------------------- reasons and sources


def test_end_of_the_response_gives_class_category_and_explanation() -> None:
    """Copy class, category and explanation of an end's reason into texts and alerts."""
    why = ("policy", "cyber", "asked for malware")
    resolution = Story().delta(1, "a").end(2, "failed", "cyber_policy", why=why).resolve()
    ends: list[FinishedPart | ResponseEnd] = [*resolution.finished, *resolution.ends]
    for end in ends:
        assert (end.reason_class, end.provider_category, end.provider_explanation) == why
    copied = Story().end(2, "incomplete", "x", (copy("a"),), why=why).only()
    assert (copied.reason_class, copied.provider_category, copied.provider_explanation) == why


def test_part_closed_by_its_own_has_no_reason() -> None:
    """Record no reason for a text that was closed before the end."""
    finished = Story().delta(1, "a").closing(2, "a").end(3, "failed", "x", why=("policy", "c", "e")).only()
    values = (
        finished.reason,
        finished.reason_class,
        finished.provider_category,
        finished.provider_explanation,
    )
    assert values == (None, None, None, None)


def test_limit_of_open_responses_is_a_reason_without_a_class() -> None:
    """Record class `unknown` for deltaloom's own reasons."""
    resolution = Story().delta(1, "a").resolve(idle_at_ms=5, why=OPEN_LIMIT)
    ends: list[FinishedPart | ResponseEnd] = [*resolution.finished, *resolution.ends]
    assert [each.reason_class for each in ends] == ["unknown", "unknown"]


@pytest.mark.parametrize(
    ("story", "source"),
    [
        (Story().delta(1, "a").closing(2, "a"), "provider"),
        (Story().delta(1, "a").closing(2, "a", note=Note(source="producer")), "producer"),
        (Story().delta(1, "a").closing(2, "b", Rank.CONTENT_PART), "provider"),
        (Story().delta(1, "a").end(2, copies=(copy("a"),)), "provider"),
        (Story().delta(1, "a").closing(2, ""), None),
        (Story().delta(1, "a").closing(2, "", note=Note(source="producer")), None),
        (Story().delta(1, "a").end(2), None),
        (Story().delta(1, "a").item_end(2), None),
    ],
)
def test_source_is_that_of_the_authoritative_text(story: Story, source: str | None) -> None:
    """Record the source of the authoritative text: provider or producer."""
    assert story.only().integrity_source == source


def test_source_is_that_of_the_first_text() -> None:
    """Record the source of the text that is used, not of a later copy."""
    story = Story().closing(2, "b", note=Note(source="producer"))
    story.closing(2, "a", Rank.CONTENT_PART, position=1)
    assert (story.only().assembly.text, story.only().integrity_source) == ("b", "producer")


# --------------------------------------------------------------------------------------------- checksums


def checksum(text: str, size: int | None = None) -> Note:
    """Return the note of a closing with this text's checksum."""
    return Note(Checksum(sha256(text.encode()).hexdigest(), size))


@pytest.mark.parametrize(
    ("note", "integrity"),
    [
        (checksum("a😀"), "verified"),
        (checksum("a😀", 5), "verified"),
        (checksum("a😀", 4), "unverified"),
        (checksum("a"), "unverified"),
    ],
)
def test_checksum_verifies_the_deltas(note: Note, integrity: str) -> None:
    """Verify the deltas' text by hash and size."""
    finished = Story().delta(1, "a\ud83d").delta(2, "\ude00").closing(3, "", note=note).only()
    assert (finished.assembly.text, finished.integrity, finished.integrity_source) == (
        "a😀",
        integrity,
        "provider",
    )


def test_checksum_of_a_part_without_deltas_is_only_remembered() -> None:
    """Hold a checksum of a part without deltas, since a later copy may have the text."""
    story = Story().closing(2, "", note=checksum("a"))
    assert story.resolve().finished == []
    finished = story.closing(3, "a", Rank.OUTPUT_ITEM).only()
    assert (finished.assembly.text, finished.finished_ms, finished.contradiction) == ("a", 3, None)


def test_text_after_a_checksum_is_late() -> None:
    """Treat a text after a checksum as late, for any cuts into entries."""
    story = Story().delta(1, "a").closing(2, "", note=checksum("a"))
    finished = story.closing(2, "ab", Rank.CONTENT_PART, position=1).only()
    assert (finished.assembly.text, finished.integrity) == ("a", "verified")
    assert finished.contradiction == Contradiction(PART, "ab", None, KNOWN, 2)


@pytest.mark.parametrize(
    ("story", "finishes"),
    [
        (Story().delta(1, "a").closing(5, "", note=checksum("a")), 1),
        (Story().delta(1, "a").closing(5, "", note=checksum("ab")), 0),
        (Story().closing(5, "", note=Note(redacted=True)), 0),
    ],
    ids=["equal", "differs", "redacted"],
)
def test_text_without_a_matching_checksum_waits_for_a_stuck_worker(story: Story, finishes: int) -> None:
    """Finish a text that the checksum confirms while a worker is stuck, and hold others."""
    assert len(story.resolve(LowWater(EntryId(1, 0), stalled=True)).finished) == finishes


# ------------------------------------------------------------------------------------- redactions and losses


def test_redacted_part_is_closed_without_a_text() -> None:
    """Finish a redacted part with an empty text."""
    finished = Story().closing(2, "", note=Note(redacted=True), item_id="it").only()
    assert finished == FinishedPart(
        PART, Assembly("", 0, 0, None, None), "completed", None, "redacted", "it", KNOWN, 2, 2
    )


def test_part_that_is_redacted_after_some_deltas_keeps_them() -> None:
    """Keep the deltas of a part that is redacted later."""
    finished = Story().delta(1, "a").closing(2, "", note=Note(redacted=True)).only()
    assert (finished.assembly.text, finished.integrity) == ("a", "unverified")


@pytest.mark.parametrize("note", [None, checksum("a")])
def test_text_is_preferred_to_a_redaction(note: Note | None) -> None:
    """Prefer a text or a checksum to a redaction of the same part."""
    story = Story().delta(1, "a").closing(2, "" if note else "a", Rank.CONTENT_PART, note=note)
    finished = story.closing(2, "", position=1, note=Note(redacted=True)).only()
    assert (finished.assembly.text, finished.integrity) == ("a", "verified")


@pytest.mark.parametrize(
    ("closing", "integrity"),
    [
        (Story().delta(1, "a").closing(3, "a"), "repaired"),
        (Story().delta(1, "a").closing(3, "ab"), "repaired"),
        (Story().delta(1, "a").closing(3, "", note=checksum("a")), "unverified"),
        (Story().delta(1, "a").closing(3, ""), "unverified"),
        (Story().delta(1, "a").end(3, copies=(copy("a"),)), "repaired"),
        (Story().closing(3, "", note=Note(redacted=True)), "redacted"),
    ],
)
def test_nothing_is_verified_after_a_loss(closing: Story, integrity: str) -> None:
    """Verify no text after a reported loss."""
    assert closing.loss(2).only().integrity == integrity


def test_loss_after_the_end_of_a_text_does_not_concern_it() -> None:
    """Ignore a loss after the closing. Otherwise the integrity would depend on when a worker looks."""
    story = Story().delta(1, "a").closing(3, "a").loss(3)
    assert story.only().integrity == "verified"
    del story.notes[at(3, 7)]
    assert story.loss(2).only().integrity == "repaired"


# --------------------------------------------------------------------------------------------- contradictions


@pytest.mark.parametrize(
    ("story", "text", "ms"),
    [
        (Story().delta(1, "a").closing(2, "a").closing(3, "b"), "b", 3),
        (Story().delta(1, "a").closing(2, "a").closing(4, "c").closing(3, "b"), "b", 3),
        (Story().delta(1, "a").closing(2, "a").closing(2, "b", Rank.CONTENT_PART, position=1), "b", 2),
        (Story().delta(1, "a").closing(2, "a").closing(3, "\ud83d"), "\ufffd", 3),
        (Story().delta(1, "a").closing(2, "a").closing(3, "", note=checksum("b")), "", 3),
        (Story().delta(1, "a").closing(2, "a").end(3, copies=(copy("b"),)), "b", 3),
        (Story().delta(1, "a").closing(2, "").closing(3, "b"), "b", 3),
        (Story().delta(1, "a").closing(2, "", note=checksum("b")), "", 2),
        (Story().closing(2, "", note=Note(redacted=True)).closing(3, "b"), "b", 3),
        (Story().end(2, copies=(copy("a"),)).closing(3, "b"), "b", 3),
    ],
)
def test_another_text_contradicts_the_one_that_comes_out(story: Story, text: str, ms: int) -> None:
    """Report a contradiction by a later, different text.

    Otherwise a reused response id would go unnoticed.
    """
    assert story.only().contradiction == Contradiction(PART, text, None, KNOWN, ms)


@pytest.mark.parametrize(
    "story",
    [
        Story().delta(1, "a").closing(2, "a").closing(3, "a", Rank.OUTPUT_ITEM).end(4, copies=(copy("a"),)),
        Story().delta(1, "a").closing(2, "a").closing(3, ""),
        Story().delta(1, "a").closing(2, "a").closing(3, "", note=checksum("a")),
        Story().delta(1, "a").closing(2, "a").closing(3, "", note=checksum("a", 7)),
        Story().delta(1, "a").closing(2, "ab"),
        Story().delta(1, "a").closing(2, "a").end(3, copies=(copy(""),)),
        Story().delta(1, "a").closing(2, "a").end(3, copies=(copy("b", 1),)),
        Story().delta(1, "a").closing(2, "a").end(3, copies=(copy("b"), copy("a", 1))),
        Story().delta(1, "a").closing(2, "a").end(3, copies=(copy("b", kind="output_text"),)),
        Story().delta(1, "a\ud83d").closing(2, "a\ud83d").closing(3, "a\ufffd"),
        Story()
        .delta(1, "x", PART._replace(output_index=5))
        .end(1, copies=(copy("b"),))
        .delta(2, "a")
        .closing(3, "a"),
    ],
)
def test_the_same_text_again_contradicts_nothing(story: Story) -> None:
    """Report no contradiction by an equal text, an empty one, or a copy at another position."""
    assert {finished.contradiction for finished in story.resolve().finished if finished.part == PART} == {
        None
    }


def test_final_copy_contradicts_a_text_that_is_finished() -> None:
    """Compare a final copy with finished texts."""
    story = Story().end(5, copies=(copy("b", item_id="it"),))
    story.finished[PART] = text_digest("a")
    assert story.resolve().contradictions == [Contradiction(PART, "b", "it", KNOWN, 5)]
    assert story.resolve(LowWater(EntryId(5, 0))).contradictions == []
    story.finished[PART] = text_digest("b")
    assert story.resolve().contradictions == []


def test_final_copy_is_compared_when_all_before_it_is_stored() -> None:
    """Compare a final copy only when all earlier entries are stored."""
    story = Story().delta(1, "a").closing(2, "a").end(5, copies=(copy("b"),))
    (finished,) = story.resolve(LowWater(EntryId(5, 0))).finished
    assert finished.contradiction is None


def test_part_that_began_after_the_final_copy_is_ignored() -> None:
    """Ignore parts that begin after the final copy when matching it."""
    story = Story().end(5, copies=(copy("b", item_id="it"),)).delta(6, "x", PART._replace(output_index=5))
    story.finished[PART] = text_digest("a")
    assert story.resolve().contradictions == [Contradiction(PART, "b", "it", KNOWN, 5)]


def test_text_of_v0_1_0_is_not_contradicted() -> None:
    """Report no contradiction of a text of v0.1.0, which has no digest."""
    story = Story().end(5, copies=(copy("b"),))
    story.finished[PART] = None
    assert story.resolve().contradictions == []


def test_given_up_part_can_be_contradicted() -> None:
    """Report a contradiction of an abandoned part by its checksum."""
    finished = Story().closing(3, "", note=checksum("a")).only(idle_at_ms=500)
    assert finished.contradiction == Contradiction(PART, "", None, KNOWN, 3)


# ---------------------------------------------------------------------------------- refusals of the response

REFUSAL = PART._replace(kind="refusal")


@pytest.mark.parametrize(
    ("story", "refused"),
    [
        (Story().end(5), False),
        (Story().delta(1, "a").end(5), False),
        (Story().delta(1, "a", REFUSAL).end(5), True),
        (Story().delta(5, "a", REFUSAL).end(5), True),
        (Story().delta(6, "a", REFUSAL).end(5), False),
        (Story().closing(1, "a", part=REFUSAL).end(5), True),
        (Story().end(5, copies=(copy("a", kind="refusal"),)), True),
        (Story().end(5, copies=(copy("a"),)), False),
    ],
)
def test_end_reports_refusals_before_it(story: Story, *, refused: bool) -> None:
    """Report whether a response had a refusal before its end, to avoid a second alert."""
    assert [end.refused_in_text for end in story.resolve().ends] == [refused]


def test_end_reports_finished_refusals() -> None:
    """Include finished refusals."""
    story = Story().end(5)
    story.finished[REFUSAL] = None
    assert [end.refused_in_text for end in story.resolve().ends] == [True]
