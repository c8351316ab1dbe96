"""The contract as a program: one reader, one entry after the other, without failures.

The workers' outputs are compared with this model. It is written from the contract, and shares no code with
the worker: the events of an entry are dictionaries as the API streams them, and a part is finished by the
first event that closes it and leaves it with a text. A text without deltas that equals an earlier one is a
copy of it, and is dropped.

The model presumes two rules that real servers keep: repeated texts of a part are equal, and a producer gives
all entries of a response the same context.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

Event = dict[str, Any]


class Bad(NamedTuple):
    """An item in place of an event that cannot be handled."""

    json: str
    reason: str


class Silence:
    """A pause in place of an entry: no entry came for the idle timeout, so that open texts are abandoned."""


class PartId(NamedTuple):
    """The identity of a text, by fields of its message. `item_id` is set only without a response id."""

    response_id: str | None
    item_id: str | None
    output_index: int
    content_index: int
    kind: str


_FINAL_COPY = 3
"""Rank of a text in the response's final copy."""


class ExpectedText(NamedTuple):
    """The expected output for one part."""

    part: PartId
    item_id: str | None
    text: str
    status: str
    reason: str | None
    integrity: str
    fragments: int
    """Number of deltas in the text, repeats included."""
    late: int
    """Number of its deltas that came after it was finished."""
    context: dict[str, str]
    entries: tuple[int, ...]
    """Numbers of the entries with events of the part.

    The first entry opens the part. But while a worker is stuck with that entry, a text that is certain
    without it may come from repeated events.
    """
    closed_by: int | None
    """Number of the entry that closes it; None if it is abandoned."""
    copied: bool = False
    """True if only the response's final copy contains its text."""
    numbered: bool = False
    """True if the sequence numbers of its deltas give their order and identify repeats."""

    @property
    def certain(self) -> bool:
        """Return whether it does not wait for a stuck worker: it is verified, and its context is known."""
        confirmed = self.integrity == "verified" and self.numbered and not self.copied
        return confirmed and "safety_identifier" in self.context


class Early(NamedTuple):
    """A text in place of an entry: it came out without that entry, since a worker was stuck with it.

    The text was certain without the entry. Its own entries come later.
    """

    text: ExpectedText


class ExpectedStop(NamedTuple):
    """An expected alert: a filter or a policy ended a response (or an item without a response id)."""

    type: str
    response_id: str | None
    item_id: str | None


class Expectation(NamedTuple):
    """The expected outputs of one response."""

    texts: tuple[ExpectedText, ...]
    late: int
    """Number of deltas that came after their part was finished."""
    fragments: int
    closings: int
    """Number of events that close a part, or give information about the response."""
    types: Counter[str]
    """Counts of events with types that no handler handles."""
    letters: Counter[tuple[int, str]]
    """Dead letters, by entry number and reason."""
    stops: dict[ExpectedStop, str]
    """Expected alerts about the response's end, with their reasons."""
    contradicted: frozenset[PartId]
    """Parts for which some event has a different text than the one that comes out."""


class _Rule(NamedTuple):
    kind: str
    place: str
    text: str


_DELTAS = {
    "response.refusal.delta": _Rule("refusal", "content_index", "delta"),
    "response.reasoning_text.delta": _Rule("reasoning", "content_index", "delta"),
    "response.reasoning_summary_text.delta": _Rule("reasoning_summary", "summary_index", "delta"),
}
_DONES = {
    "response.refusal.done": _Rule("refusal", "content_index", "refusal"),
    "response.reasoning_text.done": _Rule("reasoning", "content_index", "text"),
    "response.reasoning_summary_text.done": _Rule("reasoning_summary", "summary_index", "text"),
}
_COPIES = {
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning", "text"),
    "summary_text": ("reasoning_summary", "text"),
}
"""Kind and text field of each type of content part. Other types are ignored."""

_HANDLED_PARTS = {*_COPIES, "output_text"}
_HANDLED_ITEMS = {"message", "reasoning"}

_STOPS: dict[tuple[str, str | None], str] = {
    ("incomplete", "content_filter"): "deltaloom.response.filtered",
    ("failed", "content_policy_violation"): "deltaloom.response.blocked",
}
"""Type of the alert for an end, by status and reason."""

_STATUSES = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "error": "failed",
}
"""Status of a response, by the type of the event that ends it."""


@dataclass(slots=True)
class _Part:
    id: PartId
    item_id: str | None
    entries: list[int]
    fragments: list[tuple[int | None, str]] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    """Texts that the current event has for the part, by rank."""
    own_end: bool = False
    ends_now: bool = False
    """True if the current event closes the part."""
    late: int = 0
    finished: ExpectedText | None = None
    finished_by: int = 0
    """Number of the event that finished the part."""
    misplaced: bool = False
    """True if an item's copy has its text at a different place."""
    dropped: bool = False
    """True if the part is a copy of another one."""


_Copied = tuple[str | None, int, int, str, str]
"""A text in a final copy: item id, position of the item, index of the text, kind, text."""


class _Terminal(NamedTuple):
    status: str
    reason: str | None
    copies: list[_Copied]
    items: set[str | None]
    """Ids of all items in the final copy."""


def expected_of(
    entries: Sequence[list[Event | Bad] | Silence | Early], response_id: str | None, context: dict[str, str]
) -> Expectation:
    """Return the expected outputs of a response's entries, all with this response id and context."""
    reader = _Reader(response_id, context)
    for number, events in enumerate(entries):
        if isinstance(events, Silence):
            reader.give_up()
        elif isinstance(events, Early):
            reader.finish_early(number, events.text)
        else:
            reader.read(number, events)
    return reader.end()


class _Reader:
    def __init__(self, response_id: str | None, context: dict[str, str]) -> None:
        self.response_id = response_id
        self.context = dict(context)
        self.parts: dict[PartId, _Part] = {}
        self.fragments = self.closings = 0
        self.types: Counter[str] = Counter()
        self.letters: Counter[tuple[int, str]] = Counter()
        self.terminals: dict[str | None, _Terminal] = {}
        self.ended_items: set[tuple[str | None, int | None]] = set()
        self.stops: dict[ExpectedStop, str] = {}
        self.texts: defaultdict[PartId, set[str]] = defaultdict(set)
        """Texts that any event has for a part."""
        self.copied: defaultdict[PartId, set[str]] = defaultdict(set)
        """Texts that a final copy has at a part's place, as the only one of its kind."""
        self.copies_now: list[tuple[str | None, list[_Copied]]] = []
        """Final copies of the current event, with their item ids (None for the response)."""
        self.stops_now: dict[ExpectedStop, str] = {}
        """Alerts about the end that the current event causes."""
        self.listed: set[PartId] = set()
        """Places of the texts in the item copy that is being read."""
        self.events = 0

    def read(self, number: int, events: list[Event | Bad]) -> None:
        for event in events:
            if isinstance(event, Bad):
                self.letters[number, event.reason] += 1
            else:
                self._read_event(number, event)
        for part in self.parts.values():
            if part.finished is not None and part.finished.closed_by == number:
                # Context and item id are those after the whole entry.
                part.finished = part.finished._replace(context=dict(self.context), item_id=part.item_id)

    def _read_event(self, number: int, event: Event) -> None:
        self.events += 1
        self.terminals.clear()
        self.ended_items.clear()
        self.listed.clear()
        self._event(number, event)
        self._note_stops()
        for part in sorted(self.parts.values(), key=lambda part: not part.fragments):
            if not part.dropped:
                self._close(number, part)
        for owner, terminal in self.terminals.items():
            self._only_in_final_copy(number, owner, terminal)
        for owner, copies in self.copies_now:
            self._note_copied(owner, copies)
        self.copies_now.clear()

    def _note_copied(self, owner: str | None, copies: list[_Copied]) -> None:
        """Note the copied texts of parts that are the only ones of their kind, in copy and response."""
        in_response = Counter(part.id.kind for part in self.parts.values() if part.id.item_id == owner)
        in_copy = Counter(kind for *_, kind, _ in copies)
        for _, position, index, kind, text in copies:
            part = PartId(self.response_id, owner, position, index, kind)
            if part in self.parts and in_response[kind] == in_copy[kind] == 1:
                self.copied[part].add(repaired(text))

    def _note_stops(self) -> None:
        """Expect the alerts about the end, unless there is a refusal, which has alerts of its own."""
        refused = {part.id.item_id for part in self.parts.values() if part.id.kind == "refusal"}
        for stop, reason in self.stops_now.items():
            if stop.item_id not in refused:
                self.stops.setdefault(stop, reason)
        self.stops_now.clear()

    def give_up(self) -> None:
        for part in self.parts.values():
            if part.finished is None and not part.dropped:
                status, reason = ("completed", None) if part.own_end else ("abandoned", "idle_timeout")
                self._finish(None, part, status, reason, "")

    def finish_early(self, number: int, text: ExpectedText) -> None:
        part = self.parts.setdefault(text.part, _Part(text.part, text.item_id, [number]))
        if part.finished is None:
            part.finished = text
            part.late = -text.fragments  # its own deltas are read later, and do not count as late

    def end(self) -> Expectation:
        self.give_up()
        texts = tuple(
            part.finished._replace(entries=tuple(part.entries), late=part.late)
            for part in self.parts.values()
            if part.finished is not None
        )
        late = sum(part.late for part in self.parts.values())
        contradicted = frozenset(text.part for text in texts if self._others(text.part, text.text))
        return Expectation(
            texts,
            late,
            self.fragments,
            self.closings,
            self.types,
            self.letters,
            self.stops,
            contradicted,
        )

    def _others(self, part: PartId, text: str) -> set[str]:
        """Return the texts that contradict a part's text. A final copy does not contradict an empty text."""
        copied = self.copied[part] if text else set()
        return (self.texts[part] | copied) - {text}

    def _event(self, number: int, event: Event) -> None:
        name = event["type"]
        if name in _DELTAS:
            rule = _DELTAS[name]
            self.fragments += 1
            part = self._part(
                number, event.get("item_id"), event["output_index"], event[rule.place], rule.kind
            )
            if part.finished is None and not part.dropped:
                part.fragments.append((event.get("sequence_number"), event["delta"]))
            else:
                part.late += 1
            return
        if name in _DONES:
            rule = _DONES[name]
            part = self._part(
                number, event.get("item_id"), event["output_index"], event[rule.place], rule.kind
            )
            self._add_text(part, 0, event[rule.text])
        elif name == "response.content_part.done":
            copy = _COPIES.get(event["part"]["type"])
            if copy is not None:
                kind, text = copy[0], event["part"][copy[1]]
                part = self._part(
                    number, event.get("item_id"), event["output_index"], event["content_index"], kind
                )
                self._add_text(part, 1, text)
        elif name == "response.output_item.done":
            self._item_done(number, event)
        elif name in _STATUSES:
            self._terminal(event)
        elif name == "response.created":
            self._created(event)
        else:
            self.types[name] += 1
            return
        if self._has_no_effect(event):
            self.types[name] += 1
        else:
            self.closings += 1

    def _has_no_effect(self, event: Event) -> bool:
        """Return whether an event of a known type has no effect, so that it is only counted."""
        name = event["type"]
        if name == "response.content_part.done":
            return event["part"]["type"] not in _HANDLED_PARTS
        if self.response_id is not None:
            return False
        if name == "response.output_item.done":
            return event["item"]["type"] not in _HANDLED_ITEMS
        if name in _STATUSES:
            output = event.get("response", {}).get("output") or []
            return not any(item["type"] in _HANDLED_ITEMS and item.get("id") for item in output)
        return bool(name == "response.created")

    def _created(self, event: Event) -> None:
        if self.response_id is not None:
            for name in ("model", "safety_identifier"):
                if event["response"].get(name):
                    self.context.setdefault(name, event["response"][name])

    def _item_done(self, number: int, event: Event) -> None:
        item = event["item"]
        texts = [(index, kind, text) for index, kind, text in _texts(item) if text]
        for kind in dict.fromkeys(kind for _, kind, _ in texts):
            self._item_copies(
                number, event, [(index, text) for index, each, text in texts if each == kind], kind
            )
        if self.response_id is not None:
            self.ended_items.add((None, event["output_index"]))
        elif item["type"] in {"message", "reasoning"}:
            # If there is no response id, the end of the item is the end of the response.
            self.ended_items.add((item["id"], None))
            self._ended(item["id"], _Terminal("completed", None, [], set()))

    def _item_copies(self, number: int, event: Event, copies: list[tuple[int, str]], kind: str) -> None:
        """Assign texts of one kind in an item's copy to parts: by place, by equal text, then in order."""
        item_id, output_index = event["item"].get("id"), event["output_index"]
        owner = None if self.response_id is not None else item_id
        like = [
            part
            for part in self.parts.values()
            if (part.id.kind, part.id.item_id) == (kind, owner)
            and (owner is not None or part.id.output_index == output_index)
        ]
        places = [PartId(self.response_id, owner, output_index, index, kind) for index, _ in copies]
        self.listed.update(places)
        at_place = {part.id: part for part in like}
        rest = sorted((part for part in like if part.id not in places), key=lambda part: part.id[2:4])
        rest = [part for part in rest if part.finished is None or part.finished.text]
        new = []
        for place, (_, text) in zip(places, copies, strict=True):
            if place in at_place:
                if number not in at_place[place].entries[-1:]:
                    at_place[place].entries.append(number)
                self._add_text(at_place[place], 2, text)
            else:
                new.append((place, text))
        by_text = {
            place: part
            for place, text in new
            for part in [next((each for each in rest if self._current_text(each) == repaired(text)), None)]
            if part is not None and not rest.remove(part)  # type: ignore[func-returns-value]  # remove() returns None: the part is assigned
        }
        for place, text in new:
            part = by_text.get(place) or (rest.pop(0) if rest else None)
            made = self._part(number, item_id, output_index, place.content_index, kind)
            if part is None:
                self._add_text(made, 2, text)
                continue
            made.dropped = True
            if part.dropped:
                continue
            if part.finished is None:
                part.misplaced = True
                self._add_text(part, 2, text)
            else:
                self.texts[part.id].add(repaired(text))

    def _current_text(self, part: _Part) -> str | None:
        if part.dropped:
            return None
        return repaired(joined_text(part.fragments)) if part.finished is None else part.finished.text

    def _is_copy(self, part: _Part, rank: int, text: str) -> bool:
        """Return whether a text without deltas equals an earlier one of its kind."""
        return any(
            other.id.kind == part.id.kind
            and other.id.item_id == part.id.item_id
            and other is not part
            and (rank or part.id.item_id is not None or other.id.output_index == part.id.output_index)
            and (
                other.id not in self.listed
                and other.finished_by < self.events
                and other.finished.text == text
                if other.finished is not None
                else bool(other.fragments) and self._current_text(other) == text
            )
            for other in self.parts.values()
            if not other.dropped
        )

    def _terminal(self, event: Event) -> None:
        name = event["type"]
        response = event.get("response", {})
        reason: str | None = None
        if name == "response.incomplete":
            reason = response["incomplete_details"]["reason"]
        elif name == "response.failed":
            reason = response["error"]["code"]
        elif name == "error":
            reason = event.get("code") or event.get("error", {}).get("code")
        elif name == "response.cancelled":
            reason = "cancelled"
        status = _STATUSES[name]
        output = response.get("output") or []
        copies = [
            (item.get("id"), position, index, kind, text)
            for position, item in enumerate(output)
            for index, kind, text in _texts(item)
            if text and name == "response.completed"
        ]
        if self.response_id is not None:
            self._ended(None, _Terminal(status, reason, copies, {item.get("id") for item in output}))
            return
        for item in output:
            if item["type"] in {"message", "reasoning"}:
                own = [copy for copy in copies if copy[0] == item["id"]]
                self._ended(item["id"], _Terminal(status, reason, own, {item["id"]}))

    def _ended(self, owner: str | None, terminal: _Terminal) -> None:
        """Note the end of a response or an item.

        The first end in an event gives the status; all copies count.
        """
        stopped = _STOPS.get((terminal.status, terminal.reason))
        if stopped is not None:
            self.stops_now.setdefault(ExpectedStop(stopped, self.response_id, owner), str(terminal.reason))
        known = self.terminals.setdefault(owner, terminal._replace(copies=[], items=set()))
        known.copies.extend(terminal.copies)
        self.copies_now.append((owner, terminal.copies))
        known.items.update(terminal.items)

    def _part(self, number: int, item_id: str | None, output_index: int, index: int, kind: str) -> _Part:
        owner = None if self.response_id is not None else item_id
        part_id = PartId(self.response_id, owner, output_index, index, kind)
        part = self.parts.get(part_id)
        if part is None:
            part = self.parts[part_id] = _Part(part_id, item_id, [])
        if number not in part.entries[-1:]:
            part.entries.append(number)
        if part.item_id is None:
            part.item_id = item_id
        return part

    def _add_text(self, part: _Part, rank: int, text: str) -> None:
        part.own_end = part.ends_now = True
        if text:
            part.texts.setdefault(rank, text)
            self.texts[part.id].add(repaired(text))

    def _close(self, number: int, part: _Part) -> None:
        owner = part.id.item_id
        terminal = self.terminals.get(owner)
        if (owner, part.id.output_index if owner is None else None) in self.ended_items:
            part.own_end = part.ends_now = True
        if terminal is not None:
            part.ends_now = True
            for item_id, position, index, kind, text in terminal.copies:
                # Match the copy by the id of the item if the copy has that item, else by position.
                by_id = part.item_id is not None and part.item_id in terminal.items
                there = item_id == part.item_id if by_id else position == part.id.output_index
                if there and (index, kind) == (part.id.content_index, part.id.kind):
                    part.texts.setdefault(_FINAL_COPY, text)
                    break
            alike = [copy for copy in terminal.copies if copy[3] == part.id.kind]
            others = [
                other
                for other in self.parts.values()
                if other is not part and (other.id.kind, other.id.item_id) == (part.id.kind, owner)
            ]
            if len(alike) == 1 and not others:  # the only one of its kind, at any place
                part.texts.setdefault(_FINAL_COPY, alike[0][4])
        if part.ends_now and part.finished is None:
            text = part.texts[min(part.texts)] if part.texts else ""
            whole = bool(part.texts) and min(part.texts) < _FINAL_COPY and not part.fragments
            if whole and not part.misplaced and self._is_copy(part, min(part.texts), repaired(text)):
                part.dropped = True
            elif text or terminal is not None or any(delta for _, delta in part.fragments):
                own = part.own_end or terminal is None
                status, reason = ("completed", None) if own else (terminal.status, terminal.reason)  # type: ignore[union-attr]  # there is a terminal if not own
                self._finish(number, part, status, reason, text)
        part.ends_now = False
        part.texts.clear()

    def _only_in_final_copy(self, number: int, owner: str | None, terminal: _Terminal) -> None:
        shown = {part.id.kind for part in self.parts.values() if part.id.item_id == owner}
        for item_id, position, index, kind, text in terminal.copies:
            if kind not in shown:
                part = self._part(number, item_id, position, index, kind)
                self._finish(number, part, terminal.status, terminal.reason, text)

    def _finish(self, number: int | None, part: _Part, status: str, reason: str | None, text: str) -> None:
        joined = repaired(joined_text(part.fragments))
        part.finished_by = self.events
        part.finished = ExpectedText(
            part=part.id,
            item_id=part.item_id,
            text=repaired(text) if text else joined,
            status=status,
            reason=reason,
            integrity="unverified" if not text else "verified" if repaired(text) == joined else "repaired",
            fragments=len(part.fragments),
            late=0,
            context=dict(self.context),
            entries=(),
            closed_by=number,
            copied=part.misplaced or (bool(part.texts) and min(part.texts) == _FINAL_COPY),
            numbered=_by_number(part.fragments) is not None,
        )


def _texts(item: Event) -> list[tuple[int, str, str]]:
    groups = [item.get("content") or [], item.get("summary") or []] if item["type"] != "function_call" else []
    return [
        (index, _COPIES[piece["type"]][0], piece[_COPIES[piece["type"]][1]])
        for group in groups
        for index, piece in enumerate(group)
        if piece["type"] in _COPIES
    ]


def joined_text(fragments: list[tuple[int | None, str]]) -> str:
    """Join deltas: by number if the numbers are reliable, else in order of arrival."""
    by_number = _by_number(fragments)
    if by_number is None:
        return "".join(delta for _, delta in fragments)
    return "".join(by_number[number] for number in sorted(by_number))


def _by_number(fragments: list[tuple[int | None, str]]) -> dict[int, str] | None:
    """Return the distinct deltas by number; None if the numbers are not reliable."""
    by_number: dict[int, str] = {}
    for number, delta in fragments:
        if number is None or by_number.setdefault(number, delta) != delta:
            return None
    return by_number


def repaired(text: str) -> str:
    """Return the text as it can be written: surrogate pairs joined, lone surrogates replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
