"""When a text is finished, and with what: every rule of `handlers.core.response`, one by one."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from handlers.core.assembly import Assembly, StoredClosing, StoredFragment
from handlers.core.context import Registers, note
from handlers.core.contradictions import Contradiction
from handlers.core.effects import Checksum, Context, Copy, Ending, Note, Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.response import IDLE_TIMEOUT, OPEN_LIMIT, FinishedPart, Resolution, ResponseEnd, resolve
from handlers.core.state import LowWater, ResponseState
from handlers.core.text import text_digest
from tests.strategies import log_of

if TYPE_CHECKING:
    from deltaloom.messages import Kind, Status
    from deltaloom.reasons import ReasonClass
    from handlers.core.log import PartLog

KEY = StreamKey("response", "resp_1")
ALL_STORED = LowWater(EntryId(1_000_000, 0))
PART = PartKey(KEY, 0, 0, "reasoning")
KNOWN = Context(model="m-1", safety_identifier="u-1")


def at(ms: int, position: int = 0) -> Arrival:
    """An event's arrival."""
    return Arrival(EntryId(ms, 0), position)


class Story:
    """A response, told event by event; `ms` is the entry each one came in."""

    def __init__(self, key: StreamKey = KEY, context: Context = KNOWN) -> None:
        self.key = key
        self.registers: Registers = {}
        note(self.registers, context, EntryId(1, 0))
        self.logs: dict[PartKey, tuple[list[StoredFragment], list[StoredClosing], list[str]]] = {}
        self.endings: dict[Arrival, Ending] = {}
        self.finished: dict[PartKey, str | None] = {}
        """The finished parts, with the digests of their texts."""
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
        """A fragment."""
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
        """The end of an item, after its copies."""
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
        """What can be said now."""
        logs = {part: self._stored(part) for part in self.logs}
        state = ResponseState(self.key, self.registers, self.endings, logs, self.finished, self.notes)
        return resolve(state, low_water, idle_at_ms=idle_at_ms, why=why)

    def only(self, low_water: LowWater = ALL_STORED, idle_at_ms: int | None = None) -> FinishedPart:
        """The one part that is finished now."""
        (finished,) = self.resolve(low_water, idle_at_ms).finished
        return finished


def copy(text: str, position: int = 0, kind: Kind = "reasoning", item_id: str | None = None) -> Copy:
    """A piece of the final copy."""
    return Copy(item_id, position, 0, kind, text)


# ----------------------------------------------------------------------------------------- what closes a part


def test_nothing_is_finished_that_nothing_closed() -> None:
    """A text would be cut off in the middle."""
    assert Story().delta(1, "a").resolve() == Resolution()


def test_done_closes_and_verifies() -> None:
    """The plainest text would not come out as it was sent."""
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
    """A lost delta would show in the text, or the repair would not be told."""
    finished = Story().delta(1, "a").closing(2, "ab").only()
    assert (finished.assembly.text, finished.integrity, finished.assembly.delta_count) == (
        "ab",
        "repaired",
        1,
    )


def test_a_text_that_came_whole_is_repaired() -> None:
    """A server that sends no deltas would have no texts, or ones that claim to be checked."""
    finished = Story().closing(2, "ab").only()
    assert finished.assembly == Assembly("ab", 0, 0, None, None)
    assert (finished.integrity, finished.started_ms, finished.finished_ms) == ("repaired", 2, 2)


def test_halves_are_joined_before_they_are_compared() -> None:
    """A split emoji would make a text look damaged."""
    finished = Story().delta(1, "\ud83d").delta(2, "\ude00").closing(3, "😀").only()
    assert (finished.assembly.text, finished.integrity) == ("😀", "verified")


def test_a_half_in_the_authoritative_text_is_repaired_too() -> None:
    """A message with the text could not be written."""
    finished = Story().delta(1, "a\ud83d").closing(3, "a\ud83d").only()
    assert (finished.assembly.text, finished.integrity) == ("a\ufffd", "verified")


def test_first_closing_entry_wins_and_later_ones_are_late() -> None:
    """A text would change after it was written, or depend on when it is looked at."""
    story = Story().delta(1, "a").closing(2, "a").closing(3, "other").delta(4, "late").delta(5, "late")
    finished = story.only()
    assert (finished.assembly.text, finished.integrity, finished.finished_ms) == ("a", "verified", 2)
    assert finished.assembly.delta_count == 1


@pytest.mark.parametrize("first", Rank)
def test_within_an_array_the_first_text_wins(first: Rank) -> None:
    """A producer that coalesces would get other texts than one that does not."""
    story = Story().delta(1, "a")
    for position, rank in enumerate([first, *reversed(Rank)]):
        story.closing(2, f"{position} by {rank.name}", rank, position=position)
    assert story.only().assembly.text == f"0 by {first.name}"


def test_within_an_event_the_better_source_wins() -> None:
    """A handler whose event has a text and its copy would get either."""
    story = Story().delta(1, "a")
    for rank in reversed(Rank):
        story.closing(2, f"by {rank.name}", rank)
    assert story.only().assembly.text == "by DONE"


def test_within_an_entry_an_empty_source_does_not_replace_a_lower_one() -> None:
    """An empty `.done` would erase what the copy beside it says."""
    story = Story().closing(2, "", Rank.DONE).closing(2, "whole", Rank.CONTENT_PART, position=1)
    assert story.only().assembly.text == "whole"


def test_empty_closing_of_a_part_with_deltas_closes_it() -> None:
    """A text whose `.done` is empty would wait for the idle timeout, or be erased."""
    finished = Story().delta(1, "a").closing(2, "").only()
    assert (finished.assembly.text, finished.status, finished.integrity) == ("a", "completed", "unverified")


@pytest.mark.parametrize("delta", [None, ""])
def test_empty_closing_of_a_part_without_text_is_only_remembered(delta: str | None) -> None:
    """A server whose `.done` is empty and whose copy has the text would have an empty text."""
    story = Story().closing(2, "")
    if delta is not None:
        story.delta(1, delta)
    assert story.resolve().finished == []
    finished = story.closing(3, "whole", Rank.OUTPUT_ITEM).only()
    assert (finished.assembly.text, finished.finished_ms) == ("whole", 3)


def test_remembered_closing_makes_it_complete() -> None:
    """A text that said it is complete would be called incomplete by the end of its response."""
    story = Story().closing(2, "").end(3, "incomplete", "max_output_tokens")
    assert story.only()[1:5] == (Assembly("", 0, 0, None, None), "completed", None, "unverified")


def test_status_of_an_empty_text_does_not_depend_on_when_one_looks() -> None:
    """An empty text would be complete or not, by whether a worker looked between two entries."""
    seldom = Story().delta(1, "").item_end(2).end(3, "incomplete", "max_output_tokens")
    often = Story().delta(1, "").item_end(2)
    for arrival in often.resolve().spent:
        del often.endings[arrival]
    assert often.end(3, "incomplete", "max_output_tokens").only() == seldom.only()


# ---------------------------------------------------------------------------------- ends of item and response


def test_end_of_its_item_closes_a_part() -> None:
    """A server without `.done` would leave its texts open until the response ends."""
    finished = Story().delta(1, "a").item_end(2).only()
    assert (finished.status, finished.integrity, finished.finished_ms) == ("completed", "unverified", 2)


def test_end_of_another_item_does_not() -> None:
    """A tool call's end would cut off a text."""
    assert Story().delta(1, "a").item_end(2, output_index=1).resolve().finished == []


def test_end_closes_only_what_began_before_it() -> None:
    """A text whose place was used before would be cut off at once (xAI, OpenRouter)."""
    story = Story().item_end(1).end(1, "failed").delta(2, "a")
    resolution = story.resolve()
    assert resolution.finished == []
    assert resolution.spent == [at(1, 8), at(1, 9)]


def test_end_behind_the_first_delta_in_its_array_closes_it() -> None:
    """A response that came in one array would stay open."""
    assert Story().delta(1, "a").item_end(1).only().finished_ms == 1


def test_end_before_the_first_delta_in_its_array_does_not() -> None:
    """A text would be cut off at once, or not, by how its producer cuts events into entries."""
    story = Story().delta(1, "one", position=9).item_end(1)
    assert story.resolve().finished == []
    assert story.closing(2, "one two").only().assembly.text == "one two"


@pytest.mark.parametrize(
    ("status", "reason"),
    [("completed", None), ("incomplete", "max_output_tokens"), ("failed", "server_error")],
)
def test_end_of_the_response_gives_status_and_reason(status: Status, reason: str | None) -> None:
    """A text that was cut off would look complete, or not say why it is not."""
    finished = Story().delta(1, "a").end(2, status, reason).only()
    assert (finished.status, finished.reason, finished.integrity) == (status, reason, "unverified")


def test_part_closed_by_its_own_is_complete_whatever_follows() -> None:
    """A whole text would be called failed because its response failed later."""
    assert Story().delta(1, "a").closing(2, "a").end(3, "failed", "x").only().status == "completed"
    assert Story().delta(1, "a").closing(2, "a").end(2, "failed", "x").only().status == "completed"
    assert Story().delta(1, "a").item_end(2).end(2, "failed", "x").only().status == "completed"


def test_first_of_two_ends_wins() -> None:
    """`error` followed by `response.failed` would be two failures, or the less telling one."""
    resolution = Story().delta(1, "a").end(2, "failed", "rate_limit").end(3, "failed", "other").resolve()
    (finished,) = resolution.finished
    assert (finished.reason, finished.finished_ms) == ("rate_limit", 2)
    assert resolution.spent == [at(2, 9), at(3, 9)]


def test_first_of_two_ends_in_one_entry_wins() -> None:
    """The same, for a producer that coalesces."""
    story = Story().delta(1, "a").end(2, "failed", "other", position=10).end(2, "failed", "rate_limit")
    assert story.only().reason == "rate_limit"


def test_end_of_the_response_is_its_end() -> None:
    """A response would be kept for ever, or forgotten while more of it comes."""
    assert Story().end(1).resolve().ended
    assert not Story().item_end(1).resolve().ended
    assert not Story().end(5).resolve(LowWater(EntryId(5, 0))).ended


# --------------------------------------------------------------------------------------------- the final copy


def test_final_copy_is_authoritative() -> None:
    """A lost delta would show in the text of a server without `.done`."""
    finished = Story().delta(1, "a").end(2, copies=(copy("ab"),)).only()
    assert (finished.assembly.text, finished.integrity) == ("ab", "repaired")


def test_empty_final_copy_erases_nothing() -> None:
    """`output: []` would erase what the deltas said."""
    finished = Story().delta(1, "a").end(2).only()
    assert (finished.assembly.text, finished.status, finished.integrity) == ("a", "completed", "unverified")


def test_final_copy_is_found_by_item_id_where_positions_differ() -> None:
    """A server that counts items from 1 would have each text repaired with its neighbour's."""
    first, second = PART._replace(output_index=1), PART._replace(output_index=2)
    story = Story().delta(1, "a", first, item_id="it_a").delta(2, "b", second, item_id="it_b")
    story.end(3, copies=(copy("a", 0, item_id="it_a"), copy("b", 1, item_id="it_b")))
    assert {(f.part, f.assembly.text, f.integrity) for f in story.resolve().finished} == {
        (first, "a", "verified"),
        (second, "b", "verified"),
    }


@pytest.mark.parametrize("item_id", [None, "new"])
def test_final_copy_is_found_by_position_where_ids_differ(item_id: str | None) -> None:
    """A server that gives new ids in its final copy would have its texts unverified, or twice."""
    second = PART._replace(output_index=1)
    story = Story().delta(1, "a", item_id="it_a").delta(2, "b", second, item_id="it_b")
    story.end(3, copies=(copy("a", 0, item_id=item_id), copy("b", 1, item_id=item_id)))
    assert {(f.part, f.assembly.text, f.integrity) for f in story.resolve().finished} == {
        (PART, "a", "verified"),
        (second, "b", "verified"),
    }


def test_final_copy_is_found_by_position_where_two_items_have_one_id() -> None:
    """A server whose ids collide (Ollama) would have one text twice."""
    second = PART._replace(output_index=1)
    story = Story().delta(1, "a", item_id="it").delta(2, "b", second, item_id="it")
    story.end(3, copies=(copy("a", 0, item_id="it"), copy("b", 1, item_id="it")))
    assert {(f.part, f.assembly.text) for f in story.resolve().finished} == {(PART, "a"), (second, "b")}


def test_final_copy_is_not_its_neighbours_where_that_is_finished() -> None:
    """A text would be replaced by that of the item before it, where ids collide and one has its `.done`."""
    second = PART._replace(output_index=1)
    story = Story().delta(2, "b", second, item_id="it")
    story.finished[PART] = text_digest("a")
    story.end(3, copies=(copy("a", 0, item_id="it"), copy("b", 1, item_id="it")))
    assert [(f.part, f.assembly.text) for f in story.resolve().finished] == [(second, "b")]


def test_final_copy_of_another_kind_is_not_taken() -> None:
    """An answer would be taken for the refusal at its place."""
    finished = Story().delta(1, "a").end(2, copies=(copy("ab", kind="refusal"),)).resolve().finished
    assert {(f.part.kind, f.assembly.text) for f in finished} == {("reasoning", "a"), ("refusal", "ab")}


def test_text_that_only_the_final_copy_has() -> None:
    """The texts of a server that streams nothing but the end would be lost."""
    finished = Story().end(2, copies=(copy("a\ud83d", 1, item_id="it"),)).only()
    part = PART._replace(output_index=1)
    text = Assembly("a\ufffd", 0, 0, None, None)
    assert finished == FinishedPart(
        part, text, "completed", None, "repaired", "it", KNOWN, 2, 2, integrity_source="provider"
    )


@pytest.mark.parametrize("shown", ["open", "finished"])
def test_final_copy_adds_no_text_of_a_kind_that_was_shown(shown: str) -> None:
    """A text would come twice where the copy counts items in another way than the stream."""
    story = Story()
    if shown == "open":
        story.delta(1, "a", PART._replace(output_index=5))
    else:
        story.finished[PART._replace(output_index=5)] = text_digest("a")
    finished = story.end(2, copies=(copy("a", 0),)).resolve().finished
    assert [f.part.output_index for f in finished] == ([5] if shown == "open" else [])


def test_two_ends_with_a_final_copy_give_its_texts_once() -> None:
    """A text would come twice where a producer's retry stored the end twice."""
    story = Story().end(2, copies=(copy("a"),)).end(3, copies=(copy("a"),))
    assert [f.assembly.text for f in story.resolve().finished] == ["a"]


# ------------------------------------------------------------------------------------------- what is in doubt


def test_closed_part_waits_for_the_low_water_mark() -> None:
    """A delta that another worker still holds would be missing."""
    story = Story().delta(1, "a").closing(5, "a")
    resolution = story.resolve(LowWater(EntryId(5, 0)))
    assert (resolution.finished, resolution.doubtful_since) == ([], EntryId(5, 0))
    assert story.only(LowWater(EntryId(5, 1))).integrity == "verified"
    assert story.resolve(LowWater(EntryId(5, 1))).doubtful_since is None


def test_certain_text_does_not_wait_for_a_stuck_worker() -> None:
    """One dead worker would hold up every text until its entries are claimed."""
    story = Story().delta(1, "a").closing(5, "a")
    assert story.only(LowWater(EntryId(1, 0), stalled=True)).assembly.text == "a"
    assert story.resolve(LowWater(EntryId(1, 0), stalled=True)).doubtful_since is None


@pytest.mark.parametrize(
    "story",
    [
        Story().delta(1, "a").closing(5, "ab"),
        Story().delta(1, "a").closing(5, ""),
        Story().closing(5, "ab"),
        Story().delta(1, "a").item_end(5),
        Story().delta(1, "a").end(5, copies=(copy("a"),)),
        Story().delta(1, "a", number=7).delta(2, "b", number=7).closing(5, "ab"),
        Story(context=Context(tenant="acme")).delta(1, "a").closing(5, "a"),
    ],
    ids=[
        "differs",
        "empty",
        "no deltas",
        "no text",
        "only in the final copy",
        "no numbers to trust",
        "nobody knows whose it is",
    ],
)
def test_doubtful_text_waits_for_a_stuck_worker(story: Story) -> None:
    """A text would be called damaged, or be cut off, though its worker is only slow."""
    resolution = story.resolve(LowWater(EntryId(1, 0), stalled=True))
    assert (resolution.finished, resolution.doubtful_since) == ([], EntryId(5, 0))
    assert len(story.resolve().finished) == 1


def test_text_that_began_after_the_end_of_its_response_waits_for_a_stuck_worker() -> None:
    """It would come out with its deltas, though the final copy had it first, and without any."""
    story = Story().end(2, copies=(copy("a"),)).delta(3, "a").closing(5, "a")
    resolution = story.resolve(LowWater(EntryId(1, 0), stalled=True))
    assert (resolution.finished, resolution.doubtful_since) == ([], EntryId(2, 0))
    assert story.only().integrity == "repaired"
    story = Story().delta(2, "a").closing(2, "a").end(2, copies=(copy("a"),))
    assert len(story.resolve(LowWater(EntryId(1, 0), stalled=True)).finished) == 1


def test_context_of_an_item_is_all_there_will_be() -> None:
    """The texts of a producer that gives no response id would always wait for a stuck worker."""
    key = StreamKey("item", "it")
    story = Story(key, Context()).delta(1, "a", PART._replace(stream_key=key))
    story.closing(5, "a", part=PART._replace(stream_key=key))
    assert len(story.resolve(LowWater(EntryId(1, 0), stalled=True)).finished) == 1


def test_end_is_kept_until_all_before_it_are_stored() -> None:
    """A part whose only delta another worker holds would never be closed."""
    resolution = Story().end(5).resolve(LowWater(EntryId(5, 0)))
    assert (resolution.spent, resolution.doubtful_since, resolution.ended) == ([], EntryId(5, 0), False)
    resolution = Story().end(5).resolve(LowWater(EntryId(5, 1)))
    assert (resolution.spent, resolution.doubtful_since, resolution.ended) == ([at(5, 9)], None, True)


def test_earliest_doubt_is_told() -> None:
    """A doubtful text would be looked at too late, or never."""
    other = PART._replace(content_index=1)
    story = Story().delta(1, "a").closing(7, "x").delta(2, "b", other).closing(4, "y", part=other).end(9)
    assert story.resolve(LowWater(EntryId(1, 0))).doubtful_since == EntryId(4, 0)
    assert story.resolve(LowWater(EntryId(5, 0))).doubtful_since == EntryId(7, 0)


def test_nothing_is_known_of_a_stream_that_nobody_has_read() -> None:
    """The low-water mark that storage has before it looks would finish everything."""
    assert Story().delta(1, "a").closing(5, "ab").resolve(LowWater()).finished == []


# --------------------------------------------------------------------------------------------------- given up


def test_idle_part_is_given_up() -> None:
    """A text whose connection was cut would never come out."""
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
    """An empty text that said it is complete would be called abandoned."""
    finished = Story().closing(3, "").only(idle_at_ms=500)
    assert (finished.status, finished.reason, finished.finished_ms) == ("completed", None, 3)


def test_idle_response_does_not_give_up_what_is_in_doubt() -> None:
    """A text would be finished without the delta that a dead worker holds."""
    story = Story().delta(1, "a").closing(5, "ab")
    assert story.resolve(LowWater(EntryId(1, 0)), idle_at_ms=500).finished == []
    assert story.only(idle_at_ms=500).status == "completed"


def test_reason_of_giving_up_is_told() -> None:
    """Whoever reads a text that was cut off would take the limit for silence."""
    state = ResponseState(KEY, {}, {}, {PART: log_of([StoredFragment(at(1), 1, "a")])})
    (finished,) = resolve(state, ALL_STORED, idle_at_ms=500, why=OPEN_LIMIT).finished
    assert (finished.status, finished.reason) == ("abandoned", "open_limit")


def test_nothing_is_given_up_before_the_idle_timeout() -> None:
    """A slow model's text would be cut off."""
    assert not Story().delta(1, "a").resolve().ended


def test_ends_come_in_the_order_of_the_stream() -> None:
    """Two workers would say of one response that it ended in two ways."""
    story = Story(context=Context()).end(7, "failed", "cyber_policy").end(3, "failed").delta(1, "a")
    note(story.registers, Context(model="early"), EntryId(2, 0))
    note(story.registers, Context(tenant="late"), EntryId(5, 0))
    assert story.resolve().ends == [
        ResponseEnd(KEY, "failed", None, Context(model="early"), 3),
        ResponseEnd(KEY, "failed", "cyber_policy", Context(model="early", tenant="late"), 7),
    ]


def test_an_end_in_doubt_is_none() -> None:
    """It would be said before it is known whose response it was; or of an item, as if of its response."""
    assert Story().end(7).resolve(LowWater(EntryId(7, 0))).ends == []
    assert Story().end(7).resolve(LowWater(EntryId(7, 0)), idle_at_ms=9).ends == []
    assert Story().item_end(7).resolve().ends == []


def test_what_is_given_up_has_ended_too() -> None:
    """A response whose connection was cut would count nowhere."""
    (end,) = Story().delta(1, "a").item_end(2).resolve(idle_at_ms=9).ends
    assert end == ResponseEnd(KEY, "abandoned", "idle_timeout", KNOWN, 9, "unknown")
    (end,) = Story().delta(1, "a").end(2, "incomplete", "content_filter").resolve(idle_at_ms=9).ends
    assert (end.status, end.at_ms) == ("incomplete", 2)


# ------------------------------------------------------------------------- why it ended, and who says so


def test_end_of_the_response_gives_all_that_is_said_of_its_reason() -> None:
    """Otherwise a text would not say what its alert says of the same end."""
    why = ("policy", "cyber", "asked for malware")
    resolution = Story().delta(1, "a").end(2, "failed", "cyber_policy", why=why).resolve()
    ends: list[FinishedPart | ResponseEnd] = [*resolution.finished, *resolution.ends]
    for said in ends:
        assert (said.reason_class, said.provider_category, said.provider_explanation) == why
    copied = Story().end(2, "incomplete", "x", (copy("a"),), why=why).only()
    assert (copied.reason_class, copied.provider_category, copied.provider_explanation) == why


def test_part_closed_by_its_own_has_no_reason() -> None:
    """Otherwise a whole text would say why another one of its response was cut off."""
    finished = Story().delta(1, "a").closing(2, "a").end(3, "failed", "x", why=("policy", "c", "e")).only()
    said = (finished.reason, finished.reason_class, finished.provider_category, finished.provider_explanation)
    assert said == (None, None, None, None)


def test_limit_of_open_responses_is_a_reason_without_a_class() -> None:
    """Otherwise what deltaloom does itself would be taken for what a provider says."""
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
    """Otherwise a text that its producer made up would pass for the provider's own."""
    assert story.only().integrity_source == source


def test_the_source_is_that_of_the_text_that_counts() -> None:
    """Otherwise the copy behind a producer's `.done` would give the text its source."""
    story = Story().closing(2, "b", note=Note(source="producer"))
    story.closing(2, "a", Rank.CONTENT_PART, position=1)
    assert (story.only().assembly.text, story.only().integrity_source) == ("b", "producer")


# --------------------------------------------------------------------------------------------- checksums


def checksum(text: str, size: int | None = None) -> Note:
    """Return the note of a closing that has a checksum in place of a text."""
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
    """Otherwise a text that lacks a piece would be taken for the whole, or a whole one be doubted."""
    finished = Story().delta(1, "a\ud83d").delta(2, "\ude00").closing(3, "", note=note).only()
    assert (finished.assembly.text, finished.integrity, finished.integrity_source) == (
        "a😀",
        integrity,
        "provider",
    )


def test_checksum_of_a_part_without_deltas_is_only_remembered() -> None:
    """Otherwise a later copy that has the text would come too late."""
    story = Story().closing(2, "", note=checksum("a"))
    assert story.resolve().finished == []
    finished = story.closing(3, "a", Rank.OUTPUT_ITEM).only()
    assert (finished.assembly.text, finished.finished_ms, finished.contradiction) == ("a", 3, None)


def test_text_after_a_checksum_is_late() -> None:
    """Otherwise what comes out would depend on how a producer cuts its events into entries."""
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
def test_stuck_worker_holds_up_what_a_checksum_does_not_confirm(story: Story, finishes: int) -> None:
    """Otherwise a text would be cut off though its worker is only slow, or wait though it is certain."""
    assert len(story.resolve(LowWater(EntryId(1, 0), stalled=True)).finished) == finishes


# ---------------------------------------------------------------------------------------- withheld, and lost


def test_withheld_part_is_closed_without_a_text() -> None:
    """Otherwise nobody would learn that the provider has a text which it does not give out."""
    finished = Story().closing(2, "", note=Note(redacted=True), item_id="it").only()
    assert finished == FinishedPart(
        PART, Assembly("", 0, 0, None, None), "completed", None, "redacted", "it", KNOWN, 2, 2
    )


def test_part_that_was_withheld_after_some_deltas_keeps_them() -> None:
    """Otherwise what everybody has seen would be said to be withheld."""
    finished = Story().delta(1, "a").closing(2, "", note=Note(redacted=True)).only()
    assert (finished.assembly.text, finished.integrity) == ("a", "unverified")


@pytest.mark.parametrize("note", [None, checksum("a")])
def test_what_an_event_says_of_a_text_goes_before_that_it_is_withheld(note: Note | None) -> None:
    """Otherwise a text that is known would be taken away."""
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
    """Otherwise a text would look whole although its producer had to drop some of its response."""
    assert closing.loss(2).only().integrity == integrity


def test_loss_after_the_end_of_a_text_does_not_concern_it() -> None:
    """Otherwise a text would be doubted or not, by when a worker looks."""
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
    """Otherwise a response id that is used twice would not be seen."""
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
    """Otherwise every server that sends copies, or counts from 1, would raise alerts."""
    assert {finished.contradiction for finished in story.resolve().finished if finished.part == PART} == {
        None
    }


def test_final_copy_contradicts_a_text_that_is_finished() -> None:
    """Otherwise another text would pass unseen because it came in the response's final copy."""
    story = Story().end(5, copies=(copy("b", item_id="it"),))
    story.finished[PART] = text_digest("a")
    assert story.resolve().contradictions == [Contradiction(PART, "b", "it", KNOWN, 5)]
    assert story.resolve(LowWater(EntryId(5, 0))).contradictions == []
    story.finished[PART] = text_digest("b")
    assert story.resolve().contradictions == []


def test_final_copy_is_compared_when_all_before_it_is_stored() -> None:
    """Otherwise a part that is still to come would not count among those of its kind."""
    story = Story().delta(1, "a").closing(2, "a").end(5, copies=(copy("b"),))
    (finished,) = story.resolve(LowWater(EntryId(5, 0))).finished
    assert finished.contradiction is None


def test_part_that_began_after_the_final_copy_is_none_of_its_kind() -> None:
    """Otherwise an event that comes too late would hide the other text."""
    story = Story().end(5, copies=(copy("b", item_id="it"),)).delta(6, "x", PART._replace(output_index=5))
    story.finished[PART] = text_digest("a")
    assert story.resolve().contradictions == [Contradiction(PART, "b", "it", KNOWN, 5)]


def test_text_of_an_earlier_version_is_contradicted_by_nothing() -> None:
    """Otherwise every text that was finished before the update would raise an alert after it."""
    story = Story().end(5, copies=(copy("b"),))
    story.finished[PART] = None
    assert story.resolve().contradictions == []


def test_given_up_part_can_be_contradicted() -> None:
    """Otherwise the text that its checksum says it lacks would pass unseen."""
    finished = Story().closing(3, "", note=checksum("a")).only(idle_at_ms=500)
    assert finished.contradiction == Contradiction(PART, "", None, KNOWN, 3)


# ---------------------------------------------------------------------------------- refusals of the response

REFUSAL = PART._replace(kind="refusal")


@pytest.mark.parametrize(
    ("story", "has_refusal"),
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
def test_end_knows_of_the_refusals_before_it(story: Story, *, has_refusal: bool) -> None:
    """Otherwise one refusal would raise a second alert, or the end of another response none."""
    assert [end.has_refusal for end in story.resolve().ends] == [has_refusal]


def test_end_knows_of_a_refusal_that_is_finished() -> None:
    """Otherwise a second alert would depend on whether a worker looked between two entries."""
    story = Story().end(5)
    story.finished[REFUSAL] = None
    assert [end.has_refusal for end in story.resolve().ends] == [True]
