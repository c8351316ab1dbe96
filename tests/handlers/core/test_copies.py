"""A text that a copy lists at another place than its deltas had comes out once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from handlers.core.effects import Copy, Ending, Note, Rank
from handlers.core.identity import EntryId, PartKey, StreamKey
from handlers.core.state import LowWater
from handlers.core.text import text_digest
from tests.handlers.core.test_response import KEY, Story, at

if TYPE_CHECKING:
    from handlers.core.response import Resolution

ITEM = StreamKey("item", "it")


def place(content_index: int, output_index: int = 0, key: StreamKey = KEY) -> PartKey:
    """Where a refusal stands."""
    return PartKey(key, output_index, content_index, "refusal")


def item_done(story: Story, ms: int, *texts: str, output_index: int = 0) -> Story:
    """The end of an item that lists these refusals, the first at place 0; an empty one is left out."""
    copies = []
    for index, text in enumerate(texts):
        if text:
            part = place(index, output_index, story.key)
            story.closing(ms, text, Rank.OUTPUT_ITEM, part)
            copies.append(Copy(None, output_index, index, "refusal", ""))
    scope = output_index if story.key.by == "response" else None
    story.endings[at(ms)] = Ending(story.key, scope, "completed", copies=tuple(copies))
    return story


def came_out(resolution: Resolution) -> list[tuple[int, str, str]]:
    """Return the content index, text and integrity of what is finished."""
    return [(f.part.content_index, f.assembly.text, f.integrity) for f in resolution.finished]


@pytest.mark.parametrize("key", [KEY, ITEM])
@pytest.mark.parametrize("text", ["No.", "No. Never."])
def test_copy_of_an_item_closes_the_text_at_another_place(key: StreamKey, text: str) -> None:
    """A refusal would come twice, with four alerts (vLLM, Doubao), and the true text as another one."""
    story = item_done(Story(key).delta(1, "No.", place(1, key=key)), 2, text)
    resolution = story.resolve()
    assert came_out(resolution) == [(1, text, "verified" if text == "No." else "repaired")]
    assert [dropped.part.content_index for dropped in resolution.dropped] == [0]
    assert resolution.spent == [at(2)]
    assert resolution.contradictions == []


def test_copy_of_an_item_is_no_text_beside_the_one_that_is_finished() -> None:
    """A refusal would come twice where its own `.done` was settled first."""
    story = item_done(Story(), 2, "No.")
    story.finished[place(1)] = text_digest("No.")
    resolution = story.resolve()
    assert (resolution.finished, len(resolution.dropped), resolution.contradictions) == ([], 1, [])


def test_copy_with_another_text_contradicts_the_one_that_is_finished() -> None:
    """The other text would vanish, or come out as a refusal of its own."""
    story = item_done(Story(), 2, "No. Never.")
    story.finished[place(1)] = text_digest("No.")
    resolution = story.resolve()
    assert resolution.finished == []
    assert [(c.part, c.text) for c in resolution.contradictions] == [(place(1), "No. Never.")]


def test_copy_without_a_part_is_a_new_text() -> None:
    """The second text of a server that streams only the first would be lost."""
    story = item_done(Story().delta(1, "a", place(0)), 2, "a", "b")
    assert came_out(story.resolve()) == [(0, "a", "verified"), (1, "b", "repaired")]
    story = item_done(Story(), 2, "a", "b")
    del story.logs[place(0)]
    story.finished[place(0)] = text_digest("a")
    assert came_out(story.resolve()) == [(1, "b", "repaired")]


def test_misplaced_copies_are_told_apart_by_their_words_then_by_order() -> None:
    """A text would be repaired with its neighbour's."""
    story = Story().delta(1, "a", place(5)).delta(2, "b", place(6)).delta(3, "c", place(7))
    item_done(story, 4, "b", "a+", "c+")
    assert came_out(story.resolve()) == [(5, "a+", "repaired"), (6, "b", "verified"), (7, "c+", "repaired")]


def test_two_alike_with_deltas_of_their_own_both_come() -> None:
    """A text would vanish because another has its words."""
    story = Story().delta(1, "No.", place(1)).closing(2, "No.", part=place(1))
    story.delta(3, "No.", place(2)).closing(4, "No.", part=place(2))
    item_done(story, 5, "No.", "No.")
    resolution = story.resolve()
    assert came_out(resolution) == [(1, "No.", "verified"), (2, "No.", "verified")]


def test_two_alike_in_one_copy_both_come() -> None:
    """A text would vanish because another of the same event has its words."""
    story = item_done(Story(), 1, "No.", "No.")
    assert [text for _, text, _ in came_out(story.resolve())] == ["No.", "No."]
    del story.logs[place(0)]  # it was written, and the other has to be read again
    story.finished[place(0)] = text_digest("No.")
    assert [text for _, text, _ in came_out(story.resolve())] == ["No."]


@pytest.mark.parametrize("rank", [Rank.DONE, Rank.CONTENT_PART])
@pytest.mark.parametrize("first", ["open", "closed", "finished", "copy"])
def test_whole_text_with_the_words_of_an_earlier_one_is_its_copy(rank: Rank, first: str) -> None:
    """A refusal would come twice where `.done` or its part's copy has another place, in either order."""
    story = Story()
    if first == "finished":
        story.finished[place(1)] = text_digest("No😀")
    elif first == "copy":
        item_done(story, 1, "", "No😀")
    else:
        story.delta(1, "No\ud83d", place(1)).delta(2, "\ude00", place(1))
        if first == "closed":
            story.closing(3, "No😀", part=place(1))
    story.closing(4, "No😀", rank, place(0))
    resolution = story.resolve()
    assert [text for _, text, _ in came_out(resolution)] == (
        [] if first in {"finished", "open"} else ["No😀"]
    )
    assert [dropped.part for dropped in resolution.dropped] == [place(0)]


def test_whole_text_that_others_continue_is_none_of_theirs() -> None:
    """What a text begins with would be taken for all of it, by who was faster."""
    story = Story().delta(1, "No", place(1)).delta(2, ".", place(1)).closing(3, "No", part=place(0))
    assert came_out(story.resolve()) == [(0, "No", "repaired")]


def test_repeats_hide_no_earlier_text() -> None:
    """A refusal would come twice where its producer stores an entry again."""
    story = Story().delta(1, "No", place(1), number=1).delta(2, "No", place(1), number=1)
    story.delta(3, ".", place(1), number=2).closing(4, "No.", part=place(0))
    resolution = story.resolve()
    assert (resolution.finished, [each.part for each in resolution.dropped]) == ([], [place(0)])


def test_a_copy_behind_an_end_contradicts_the_text_that_the_end_gave() -> None:
    """Somebody would be told of another text or not by how the producer cuts its events into arrays."""
    story = Story()
    story.notes[at(1)] = Note(announced=(Copy(None, 0, 1, "refusal", "a"),))
    story.end(2, "incomplete")
    resolution = item_done(story, 3, "b").resolve()
    assert came_out(resolution) == [(1, "a", "unverified")]
    assert [each.part for each in resolution.dropped] == [place(0)]
    assert [(each.part, each.text) for each in resolution.contradictions] == [(place(1), "b")]


def test_later_text_with_its_words_takes_nothing_away() -> None:
    """A text would come or not by whether another came with it."""
    story = (
        Story().closing(1, "No.", part=place(0)).delta(2, "No.", place(1)).closing(3, "No.", part=place(1))
    )
    assert len(story.resolve().finished) == 2


@pytest.mark.parametrize(("rank", "comes"), [(Rank.DONE, 1), (Rank.CONTENT_PART, 0), (Rank.OUTPUT_ITEM, 0)])
def test_copy_may_name_another_item(rank: Rank, comes: int) -> None:
    """A text would come twice where a gateway counts items anew; a `.done` is where its own text is."""
    story = Story().closing(2, "No.", rank, place(0, 0))
    story.finished[place(0, 1)] = text_digest("No.")
    assert len(story.resolve().finished) == comes


def test_copy_of_another_kind_is_a_text() -> None:
    """Reasoning that ends with the words of the refusal would vanish."""
    story = Story().closing(2, "No.", part=place(0)._replace(kind="reasoning"))
    story.finished[place(0)] = text_digest("No.")
    assert len(story.resolve().finished) == 1


def test_copy_waits_for_what_came_before_it() -> None:
    """A copy would be a text of its own if the text's worker is slower."""
    story = item_done(Story().delta(1, "No.", place(1)), 5, "No.")
    resolution = story.resolve(LowWater(EntryId(3, 0), stalled=True))
    assert (resolution.finished, resolution.dropped) == ([], [])
    assert resolution.doubtful_since == EntryId(5, 0)


def test_text_that_only_a_misplaced_copy_confirms_is_not_certain() -> None:
    """Another part that is still to come may be the one the copy belongs to."""
    story = item_done(Story().delta(1, "No.", place(1)), 5, "No.")
    assert story.resolve(LowWater(EntryId(5, 0), stalled=True)).finished == []


def test_withheld_part_takes_no_copy() -> None:
    """The text beside a withheld one would be lost."""
    story = Story().closing(1, "", part=place(0), note=Note(redacted=True))
    item_done(story, 2, "", "b")
    assert came_out(story.resolve()) == [(0, "", "redacted"), (1, "b", "repaired")]


def test_deltas_after_a_copy_are_late() -> None:
    """The accounts would not agree."""
    story = Story().delta(1, "No.", place(1)).closing(2, "No.", part=place(1))
    item_done(story, 3, "No.").delta(4, "x", place(0))
    (dropped,) = story.resolve().dropped
    assert dropped.late == 1


def test_final_copy_at_another_place_confirms_the_only_text_of_its_kind() -> None:
    """A lost delta would show in a text although the response's end has it whole."""
    story = Story().delta(1, "No", place(1)).end(2, copies=(Copy(None, 0, 0, "refusal", "No."),))
    assert came_out(story.resolve()) == [(1, "No.", "repaired")]
    two = Story().delta(1, "No", place(1)).delta(1, "x", place(2), position=1)
    two.end(2, copies=(Copy(None, 0, 0, "refusal", "No."),))
    assert [integrity for *_, integrity in came_out(two.resolve())] == ["unverified"] * 2


def test_end_that_v0_1_0_stored_takes_nothing_of_what_is_finished() -> None:
    """It does not say which finished texts it lists: a new text would be lost during an upgrade."""
    story = item_done(Story().delta(1, "a", place(1)), 2, "b")
    story.endings[at(2)] = Ending(KEY, 0, "completed")
    story.finished[place(3)] = text_digest("c")
    assert came_out(story.resolve()) == [(1, "b", "repaired")]


# ---------------------------------------------------------------------------------- only announced


def announce(story: Story, ms: int, text: str, content_index: int = 0) -> Story:
    """The beginning of a part that has a text."""
    story.notes[at(ms)] = Note(announced=(Copy("it", 0, content_index, "refusal", text),))
    return story


def test_text_that_only_its_beginning_has_comes_with_the_end() -> None:
    """A refusal that nothing else has would be lost."""
    (finished,) = announce(Story(), 1, "No.").end(3, "incomplete", "max_output_tokens").resolve().finished
    assert (finished.assembly.text, finished.integrity, finished.status) == (
        "No.",
        "unverified",
        "incomplete",
    )
    assert (finished.item_id, finished.started_ms, finished.finished_ms) == ("it", 1, 3)


def test_text_that_only_its_beginning_has_is_given_up_with_the_rest() -> None:
    """It would be lost where no end comes."""
    (finished,) = announce(Story(), 1, "No.").resolve(idle_at_ms=9).finished
    assert (finished.assembly.text, finished.status, finished.finished_ms) == ("No.", "abandoned", 9)


@pytest.mark.parametrize("other", ["delta", "final copy", "finished"])
def test_beginning_counts_only_where_nothing_else_has_its_kind(other: str) -> None:
    """A text that the deltas or a copy repeat would come twice."""
    story = announce(Story(), 1, "No")
    if other == "delta":
        story.delta(2, "No.", place(3))
    elif other == "finished":
        story.finished[place(3)] = text_digest("No.")
    copies = (Copy(None, 4, 0, "refusal", "No."),) if other == "final copy" else ()
    finished = story.end(3, copies=copies).resolve().finished
    assert [each.assembly.text for each in finished] == ([] if other == "finished" else ["No."])


def test_text_that_two_beginnings_have_comes_once() -> None:
    """`response.output_item.added` and `response.content_part.added` say the same, at two places."""
    story = announce(announce(announce(Story(), 1, "No."), 2, "No.", 1), 3, "Another", 0)
    assert came_out(story.end(4).resolve()) == [(0, "No.", "unverified")]


def test_beginning_after_the_end_does_not_count() -> None:
    """What comes out would depend on when a worker looks."""
    assert announce(Story().end(1), 2, "No.").resolve().finished == []
