"""Test that a text comes out once if a copy lists it at another position than its deltas."""

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
    """Return the key of a refusal at this position."""
    return PartKey(key, output_index, content_index, "refusal")


def item_done(story: Story, ms: int, *texts: str, output_index: int = 0) -> Story:
    """Add the end of an item that lists these refusals by content index; an empty text is left out."""
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
    """Return the content index, text and integrity of each finished part."""
    return [(f.part.content_index, f.assembly.text, f.integrity) for f in resolution.finished]


@pytest.mark.parametrize("key", [KEY, ITEM])
@pytest.mark.parametrize("text", ["No.", "No. Never."])
def test_copy_of_an_item_closes_the_text_at_another_place(key: StreamKey, text: str) -> None:
    """Close a text with an item's copy at another index. vLLM and Doubao send such copies."""
    story = item_done(Story(key).delta(1, "No.", place(1, key=key)), 2, text)
    resolution = story.resolve()
    assert came_out(resolution) == [(1, text, "verified" if text == "No." else "repaired")]
    assert [dropped.part.content_index for dropped in resolution.dropped] == [0]
    assert resolution.applied_endings == [at(2)]
    assert resolution.contradictions == []


def test_copy_of_a_finished_text_is_dropped() -> None:
    """Drop an item's copy of a text that was finished before."""
    story = item_done(Story(), 2, "No.")
    story.finished[place(1)] = text_digest("No.")
    resolution = story.resolve()
    assert (resolution.finished, len(resolution.dropped), resolution.contradictions) == ([], 1, [])


def test_copy_with_another_text_contradicts_the_one_that_is_finished() -> None:
    """Report a contradiction if the copy differs from the finished text."""
    story = item_done(Story(), 2, "No. Never.")
    story.finished[place(1)] = text_digest("No.")
    resolution = story.resolve()
    assert resolution.finished == []
    assert [(c.part, c.text) for c in resolution.contradictions] == [(place(1), "No. Never.")]


def test_copy_without_a_part_is_a_new_text() -> None:
    """Finish a text that only the item's copy has."""
    story = item_done(Story().delta(1, "a", place(0)), 2, "a", "b")
    assert came_out(story.resolve()) == [(0, "a", "verified"), (1, "b", "repaired")]
    story = item_done(Story(), 2, "a", "b")
    del story.logs[place(0)]
    story.finished[place(0)] = text_digest("a")
    assert came_out(story.resolve()) == [(1, "b", "repaired")]


def test_misplaced_copies_are_matched_by_text_then_by_order() -> None:
    """Assign misplaced copies by equal text first, and then by order."""
    story = Story().delta(1, "a", place(5)).delta(2, "b", place(6)).delta(3, "c", place(7))
    item_done(story, 4, "b", "a+", "c+")
    assert came_out(story.resolve()) == [(5, "a+", "repaired"), (6, "b", "verified"), (7, "c+", "repaired")]


def test_two_equal_texts_with_deltas_both_come_out() -> None:
    """Finish two equal texts that have their own deltas."""
    story = Story().delta(1, "No.", place(1)).closing(2, "No.", part=place(1))
    story.delta(3, "No.", place(2)).closing(4, "No.", part=place(2))
    item_done(story, 5, "No.", "No.")
    resolution = story.resolve()
    assert came_out(resolution) == [(1, "No.", "verified"), (2, "No.", "verified")]


def test_two_equal_texts_in_one_copy_both_come_out() -> None:
    """Finish two equal texts that are listed in one copy."""
    story = item_done(Story(), 1, "No.", "No.")
    assert [text for _, text, _ in came_out(story.resolve())] == ["No.", "No."]
    del story.logs[place(0)]  # the first is written, and the second is read again
    story.finished[place(0)] = text_digest("No.")
    assert [text for _, text, _ in came_out(story.resolve())] == ["No."]


@pytest.mark.parametrize("rank", [Rank.DONE, Rank.CONTENT_PART])
@pytest.mark.parametrize("first", ["open", "closed", "finished", "copy"])
def test_whole_text_equal_to_an_earlier_one_is_its_copy(rank: Rank, first: str) -> None:
    """Drop a whole text that repeats an earlier text, in any order of their closings."""
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


def test_whole_text_that_is_a_prefix_of_another_is_kept() -> None:
    """Keep a text that is only the beginning of another one."""
    story = Story().delta(1, "No", place(1)).delta(2, ".", place(1)).closing(3, "No", part=place(0))
    assert came_out(story.resolve()) == [(0, "No", "repaired")]


def test_copy_of_a_text_with_repeats_is_dropped() -> None:
    """Drop a copy of a text with repeated fragments."""
    story = Story().delta(1, "No", place(1), number=1).delta(2, "No", place(1), number=1)
    story.delta(3, ".", place(1), number=2).closing(4, "No.", part=place(0))
    resolution = story.resolve()
    assert (resolution.finished, [each.part for each in resolution.dropped]) == ([], [place(0)])


def test_copy_after_an_end_contradicts_the_announced_text() -> None:
    """Report a contradiction between an announced text and a later copy, for any cuts into arrays."""
    story = Story()
    story.notes[at(1)] = Note(announced=(Copy(None, 0, 1, "refusal", "a"),))
    story.end(2, "incomplete")
    resolution = item_done(story, 3, "b").resolve()
    assert came_out(resolution) == [(1, "a", "unverified")]
    assert [each.part for each in resolution.dropped] == [place(0)]
    assert [(each.part, each.text) for each in resolution.contradictions] == [(place(1), "b")]


def test_text_before_an_equal_one_is_kept() -> None:
    """Keep a text if an equal one follows it."""
    story = (
        Story().closing(1, "No.", part=place(0)).delta(2, "No.", place(1)).closing(3, "No.", part=place(1))
    )
    assert len(story.resolve().finished) == 2


@pytest.mark.parametrize(("rank", "comes"), [(Rank.DONE, 1), (Rank.CONTENT_PART, 0), (Rank.OUTPUT_ITEM, 0)])
def test_copy_may_name_another_item(rank: Rank, comes: int) -> None:
    """Drop a copy at another output index, as gateways number items anew; keep a text's own `.done`."""
    story = Story().closing(2, "No.", rank, place(0, 0))
    story.finished[place(0, 1)] = text_digest("No.")
    assert len(story.resolve().finished) == comes


def test_copy_of_another_kind_is_a_text() -> None:
    """Keep a text of another kind with equal words."""
    story = Story().closing(2, "No.", part=place(0)._replace(kind="reasoning"))
    story.finished[place(0)] = text_digest("No.")
    assert len(story.resolve().finished) == 1


def test_copy_waits_for_earlier_entries() -> None:
    """Hold a copy until all earlier entries are stored. Otherwise it could come out as a second text."""
    story = item_done(Story().delta(1, "No.", place(1)), 5, "No.")
    resolution = story.resolve(LowWater(EntryId(3, 0), stalled=True))
    assert (resolution.finished, resolution.dropped) == ([], [])
    assert resolution.unsettled_since == EntryId(5, 0)


def test_text_that_only_a_misplaced_copy_confirms_is_not_certain() -> None:
    """Treat a text as uncertain that only a misplaced copy confirms; it may be another part's copy."""
    story = item_done(Story().delta(1, "No.", place(1)), 5, "No.")
    assert story.resolve(LowWater(EntryId(5, 0), stalled=True)).finished == []


def test_redacted_part_takes_no_copy() -> None:
    """Assign no copy to a redacted part."""
    story = Story().closing(1, "", part=place(0), note=Note(redacted=True))
    item_done(story, 2, "", "b")
    assert came_out(story.resolve()) == [(0, "", "redacted"), (1, "b", "repaired")]


def test_deltas_after_a_copy_are_late() -> None:
    """Count deltas after a dropped copy as late."""
    story = Story().delta(1, "No.", place(1)).closing(2, "No.", part=place(1))
    item_done(story, 3, "No.").delta(4, "x", place(0))
    (dropped,) = story.resolve().dropped
    assert dropped.late == 1


def test_final_copy_at_another_place_confirms_the_only_text_of_its_kind() -> None:
    """Use a final copy at another position if it is the only text of its kind."""
    story = Story().delta(1, "No", place(1)).end(2, copies=(Copy(None, 0, 0, "refusal", "No."),))
    assert came_out(story.resolve()) == [(1, "No.", "repaired")]
    two = Story().delta(1, "No", place(1)).delta(1, "x", place(2), position=1)
    two.end(2, copies=(Copy(None, 0, 0, "refusal", "No."),))
    assert [integrity for *_, integrity in came_out(two.resolve())] == ["unverified"] * 2


def test_ending_of_v0_1_0_drops_no_new_text() -> None:
    """Drop no new text because of an ending of v0.1.0, which lacks the list of finished texts."""
    story = item_done(Story().delta(1, "a", place(1)), 2, "b")
    story.endings[at(2)] = Ending(KEY, 0, "completed")
    story.finished[place(3)] = text_digest("c")
    assert came_out(story.resolve()) == [(1, "b", "repaired")]


# --------------------------------------------------------------------------------- announced texts


def announce(story: Story, ms: int, text: str, content_index: int = 0) -> Story:
    """Add the beginning of a part with a text."""
    story.notes[at(ms)] = Note(announced=(Copy("it", 0, content_index, "refusal", text),))
    return story


def test_text_that_only_its_beginning_has_comes_with_the_end() -> None:
    """Finish a text that only the part's beginning has when its response ends."""
    (finished,) = announce(Story(), 1, "No.").end(3, "incomplete", "max_output_tokens").resolve().finished
    assert (finished.assembly.text, finished.integrity, finished.status) == (
        "No.",
        "unverified",
        "incomplete",
    )
    assert (finished.item_id, finished.started_ms, finished.finished_ms) == ("it", 1, 3)


def test_text_that_only_its_beginning_has_is_given_up_with_the_rest() -> None:
    """Finish it as abandoned if its response does not end."""
    (finished,) = announce(Story(), 1, "No.").resolve(idle_at_ms=9).finished
    assert (finished.assembly.text, finished.status, finished.finished_ms) == ("No.", "abandoned", 9)


@pytest.mark.parametrize("other", ["delta", "final copy", "finished"])
def test_beginning_counts_only_without_another_text_of_its_kind(other: str) -> None:
    """Ignore the beginning's text if another source has a text of its kind. Otherwise it would come twice."""
    story = announce(Story(), 1, "No")
    if other == "delta":
        story.delta(2, "No.", place(3))
    elif other == "finished":
        story.finished[place(3)] = text_digest("No.")
    copies = (Copy(None, 4, 0, "refusal", "No."),) if other == "final copy" else ()
    finished = story.end(3, copies=copies).resolve().finished
    assert [each.assembly.text for each in finished] == ([] if other == "finished" else ["No."])


def test_text_that_two_beginnings_have_comes_once() -> None:
    """Finish a text once that two beginning events announce at different positions."""
    story = announce(announce(announce(Story(), 1, "No."), 2, "No.", 1), 3, "Another", 0)
    assert came_out(story.end(4).resolve()) == [(0, "No.", "unverified")]


def test_beginning_after_the_end_does_not_count() -> None:
    """Ignore a beginning after the end. Otherwise the result would depend on when a worker looks."""
    assert announce(Story().end(1), 2, "No.").resolve().finished == []
