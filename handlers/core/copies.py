"""Find misplaced copies: texts listed at another place than their original. They make no text of their own.

Servers count positions in different ways. vLLM and Doubao list a text in `output_item.done` at another index
than its deltas had. Some gateways count the items of one response from 0 twice. So a text at a place without
deltas is not always a new text. A text is *whole* if none of its deltas came before its closing event.

1. The end of an item lists all texts of the item. Each kind is matched separately. A text listed at the
   place of a part belongs to that part. The remaining whole texts belong to the remaining parts of the item
   that began before this end: first to parts with an equal text, then in order. A text without a remaining
   part is new.
2. Any other whole text is a copy if it equals an earlier text of its kind: a closed text, or the joined
   deltas that an open part has by then. If the whole text comes from its own `.done`, the
   original must be in the same item. If it comes from the `.done` of its content part or item, the original
   may be anywhere in the response.

A text with deltas before its closing event is never dropped: two equal ones are both written.
"""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.closes import Close
from handlers.core.contradictions import Other
from handlers.core.effects import Rank
from handlers.core.text import repair, text_digest, utf16_length
from handlers.core.timeline import is_like, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deltaloom.messages import Kind
    from handlers.core.identity import Arrival, PartKey
    from handlers.core.part_log import PartLog
    from handlers.core.timeline import Place, Timeline


class Assigned(NamedTuple):
    """The result of matching misplaced copies in the ends of items to the parts that they belong to."""

    closes: dict[PartKey, Close]
    """Closes of open parts that the low-water mark has passed.

    Closes by a misplaced copy are added; those of the keys in `copies` remain.
    """
    copies: set[PartKey]
    """Keys at which the end of an item repeats the text of another part. No text is written for them."""
    others: list[tuple[PartKey, Other]]
    """Closed parts for which a misplaced copy has a different text, with that text."""
    texts_of_ends: Mapping[PartKey, tuple[Arrival, str]]
    """Texts that only a final copy or `Announced` gives, by part.

    Each comes with the arrival of the response's end that closes the part.
    """

    def is_closed(self, part: PartKey, before: Arrival) -> bool:
        """Return whether `closes` or `texts_of_ends` closes a part before the event `before`.

        Parts that are stored as finished are in neither: do not ask for them.
        """
        texts_of_ends, close = self.texts_of_ends.get(part), self.closes.get(part)
        return (texts_of_ends is not None and texts_of_ends[0] < before) or (
            close is not None and close.at < before
        )


def is_whole(log: PartLog, close: Close) -> bool:
    """Return whether a closing gives a text at the part's own place, and no delta of the part came before.

    Return False if even an empty delta came before the close, or if only a final copy has the text.
    """
    return bool(close.stated.text) and close.own and not log.has_fragment(close.at)


def assign_item_copies(
    timeline: Timeline,
    closes: Mapping[PartKey, Close],
    joined: Joined,
    texts_of_ends: Mapping[PartKey, tuple[Arrival, str]] = MappingProxyType({}),
) -> Assigned:
    """Match the misplaced copies in the ends of items to the parts that they belong to.

    Only whole texts are matched that an item's end gives at a place where no part began before. Texts for
    which no part is left stay parts of their own.

    Args:
        timeline: the stored state of the response.
        closes: the closes of open parts, as far as the low-water mark has passed them; it is not changed.
        joined: the joined texts of open parts.
        texts_of_ends: texts as in `Assigned.texts_of_ends`.
    """
    assigned = Assigned({**closes}, set(), [], texts_of_ends)
    groups: dict[tuple[Arrival, Kind], list[PartKey]] = {}
    for part, close in closes.items():
        log = timeline.state.open_parts[part]
        by_item = close.stated.rank is Rank.OUTPUT_ITEM and log.began == close.at
        if by_item and is_whole(log, close):
            groups.setdefault((close.at, part.kind), []).append(part)
    for (at, _), copies in sorted(groups.items()):
        _assign(timeline, at, sorted(copies), assigned, joined)
    return assigned


def _assign(
    timeline: Timeline, at: Arrival, copies: Sequence[PartKey], assigned: Assigned, joined: Joined
) -> None:
    """Match misplaced copies of one kind in the item's end at `at` to parts that this end does not list.

    Copies are matched to parts with an equal text first, then the others to the remaining parts, in the order
    of their places. The matches are added to `assigned`. A copy without a part is left as it is.
    """
    rest = _parts_without_copy(timeline, at, copies, assigned)
    if not rest:
        return
    digests = {part: _digest(part, at, assigned, joined) for part in rest}
    rest = [part for part in rest if digests[part] != _EMPTY or not _is_closed(timeline, part, at, assigned)]
    by_digest: dict[str | None, list[PartKey]] = {}
    for part in rest:
        by_digest.setdefault(digests[part], []).append(part)
    left = []
    pairs = []
    for copy in copies:
        alike = by_digest.get(text_digest(repair(assigned.closes[copy].stated.text)))
        if alike:
            pairs.append((copy, alike.pop(0)))
        else:
            left.append(copy)
    taken = {part for _, part in pairs}
    pairs += zip(left, [part for part in rest if part not in taken], strict=False)
    for copy, part in pairs:
        _assign_copy(timeline, at, copy, part, assigned, joined)


def _digest(part: PartKey, until: Arrival, assigned: Assigned, joined: Joined) -> str | None:
    if part in assigned.texts_of_ends:
        return text_digest(assigned.texts_of_ends[part][1])
    return joined.digest(part, until, assigned.closes.get(part))


def _parts_without_copy(
    timeline: Timeline, at: Arrival, copies: Sequence[PartKey], assigned: Assigned
) -> list[PartKey]:
    """Return the parts that misplaced copies in the item's end at `at` may belong to, sorted.

    They have the item and the kind of the copies, and that end lists no text at their place. They are stored
    as finished, were closed before that end, or are open and began before it. If the end is stored without
    the places of its texts, only open parts are returned.
    """
    state, first = timeline.state, copies[0]
    ending = state.endings.get(at)
    listed = (
        {(each.output_position, each.content_index) for each in ending.copies if each.kind == first.kind}
        if ending
        else set()
    )
    like = {*timeline.parts_like(first), *(part for part in assigned.texts_of_ends if is_like(part, first))}
    found = [part for part in like if _place(part) not in listed and part not in copies]
    if listed:
        return sorted(
            part
            for part in found
            if part in state.finished_parts
            or assigned.is_closed(part, at)
            or (part in state.open_parts and state.open_parts[part].began < at)
        )
    # v0.1.0 stored an end without the places of its texts, so the finished parts that it lists are unknown.
    return sorted(
        part
        for part in found
        if part not in state.finished_parts
        and part in state.open_parts
        and state.open_parts[part].began < at
        and all(closing.arrival != at for closing in state.open_parts[part].closings)
    )


def _assign_copy(
    timeline: Timeline, at: Arrival, copy: PartKey, part: PartKey, assigned: Assigned, joined: Joined
) -> None:
    stated = assigned.closes[copy].stated
    assigned.copies.add(copy)
    if not _is_closed(timeline, part, at, assigned):
        assigned.closes[part] = Close(at, None, stated._replace(misplaced=True))
        return
    known = _digest(part, at, assigned, joined)
    if known is not None and known != text_digest(repair(stated.text)):
        assigned.others.append((part, Other(at, stated.text)))


_EMPTY = text_digest("")
"""Digest of an empty text. A part that was closed without a text has no copies."""


def _is_closed(timeline: Timeline, part: PartKey, before: Arrival, assigned: Assigned) -> bool:
    return part in timeline.state.finished_parts or assigned.is_closed(part, before)


class Joined:
    """The texts that the parts of a response have at an event, joined on demand."""

    def __init__(self, timeline: Timeline) -> None:
        self._state = timeline.state

    @cached_property
    def _by_kind(self) -> dict[Kind, list[tuple[PartKey, PartLog]]]:
        """Open parts with a non-empty delta, by kind."""
        by_kind: dict[Kind, list[tuple[PartKey, PartLog]]] = {}
        for part, log in self._state.open_parts.items():
            if log.first_text is not None:
                by_kind.setdefault(part.kind, []).append((part, log))
        return by_kind

    def digest(self, part: PartKey, until: Arrival, close: Close | None) -> str | None:
        """Return the digest of the text that a part, open or finished, has at the event `until`.

        A finished part has its stored digest, or None without one, at any event. An open part has the text
        that `close` gives, if `close` came before `until`; else the joined deltas up to `until` or `close`,
        whichever is earlier. `close` is the event that closes the part, or None.
        """
        if part in self._state.finished_parts:
            return self._state.finished_parts[part]
        if close is not None and close.at < until and close.stated.text:
            return text_digest(repair(close.stated.text))
        end = until if close is None else min(until, close.at)
        return text_digest(self._state.open_parts[part].assembled(end)[0].text)

    def is_open_text(self, copy: PartKey, text: str, closes: Mapping[PartKey, Close]) -> bool:
        """Return whether `text` equals the joined deltas of another open part, up to the close of `copy`.

        A part counts if it has the kind of `copy`, if nothing in `closes` has closed it by then, and if
        `copy` may repeat it: both are in one item, or the close of `copy` has another rank than `DONE`.
        `text` is the whole text of `copy`, repaired. `closes` must have the close of `copy`.
        """
        at, length = closes[copy].at, utf16_length(text)
        return any(
            log.length(at) == length and log.assembled(at)[0].text == text
            for part, log in self._by_kind.get(copy.kind, [])
            if part != copy
            and (part not in closes or closes[part].at > at)
            and _may_repeat(closes[copy], copy, part)
        )


class KnownTexts:
    """The closed texts of a response: those stored as finished, and those added later.

    Texts must be added in the order of their closing events.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._new: list[tuple[PartKey, Arrival, str]] = []
        """Texts added since the last call of `has`, without digests: few responses need that call."""
        self._closed: dict[tuple[Kind, str], list[tuple[PartKey, Arrival | None]]] = {}
        """Part and closing event of each other known text, by kind and digest.

        The event is None for a part that is stored as finished.
        """
        self._listed: dict[Arrival, frozenset[Place]] = {}
        """Places of the copies in each ending, by its arrival."""
        for part, digest in timeline.state.finished_parts.items():
            if digest is not None:
                self._closed.setdefault((part.kind, digest), []).append((part, None))

    def add(self, part: PartKey, at: Arrival, text: str) -> None:
        """Add a text that the event `at` closed."""
        self._new.append((part, at, text))

    def has(self, copy: PartKey, text: str, close: Close) -> bool:
        """Return whether another part of the kind of `copy` has the same text, and was closed before `close`.

        If `close` is by the text's own `.done` (rank `DONE`), and there is a response id, only parts of the
        item of `copy` count; else all parts of the response do. Parts that the ending at `close` lists at
        their own place do not count: an ending lists each text once, so the text at the place of `copy` is
        not theirs.
        """
        for part, added_at, known in self._new:
            self._closed.setdefault((part.kind, text_digest(known)), []).append((part, added_at))
        self._new.clear()
        at = close.at
        for part, closed in self._closed.get((copy.kind, text_digest(text)), []):
            if closed is not None and closed >= at:  # so are all that follow
                return False
            if _may_repeat(close, copy, part) and (*_place(part), part.kind) not in self._places(at):
                return True
        return False

    def _places(self, at: Arrival) -> frozenset[Place]:
        if at not in self._listed:
            ending = self._timeline.state.endings.get(at)
            self._listed[at] = frozenset(map(place_of, ending.copies if ending else ()))
        return self._listed[at]


def _place(part: PartKey) -> tuple[int, int]:
    return part.output_index, part.content_index


def _may_repeat(close: Close, copy: PartKey, part: PartKey) -> bool:
    """Return whether the text that `close` gives for `copy` may repeat the text of `part`.

    A repeat is possible if both belong to one item, or if the rank of the text is not `DONE`. Without a
    response id, all parts belong to one item.
    """
    same_item = copy.stream_key.by == "item" or copy.output_index == part.output_index
    return same_item or close.stated.rank is not Rank.DONE
