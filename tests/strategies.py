"""Hypothesis strategies: texts as servers cut them, events, whole responses, and entries of the input.

`responses()` draws a stream of events together with its expected texts, which are derived from the plan of
the response and not from the code under test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hypothesis import strategies as st

from deltaloom import limits
from handlers.core.assembly import FragmentColumns, StoredClosing, StoredFragment
from handlers.core.effects import Rank
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from service.ports.storage import Entry
from service.storage.part_codec import decode_log, encode_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deltaloom.messages import Integrity, IntegritySource, Kind, Status
    from deltaloom.reasons import ReasonClass
    from handlers.core.part_log import PartLog

Json = dict[str, Any]

any_text = st.text(st.one_of(st.characters(), st.sampled_from("\ud83d\ude00\ud800\udc00")), max_size=12)
"""Text that may contain lone surrogates, as one delta may."""

whole_text = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("😀𐀀é")), min_size=1, max_size=20
)
"""Text without lone surrogates, never empty, as a whole part has."""


@st.composite
def cut_by_code_unit(draw: st.DrawFn, text: str, *, pieces: int = 4) -> list[str]:
    """Cut `text` into non-empty pieces anywhere in its UTF-16 form: a split emoji leaves surrogates."""
    units = text.encode("utf-16-le", "surrogatepass")
    cuts = sorted(
        draw(st.sets(st.integers(1, max(1, len(units) // 2 - 1)), max_size=pieces - 1))
        if len(units) > 2
        else ()
    )
    edges = [0, *cuts, len(units) // 2]
    return [units[2 * start : 2 * end].decode("utf-16-le", "surrogatepass") for start, end in pairwise(edges)]


# ------------------------------------------------------------------------------------------------ the core

entry_ids = st.builds(EntryId, st.integers(1, 2**48), st.integers(0, 2**32))
near_entry_ids = st.builds(EntryId, st.integers(1, 3), st.integers(0, 2))
arrivals = st.builds(Arrival, st.one_of(near_entry_ids, entry_ids), st.integers(0, 3))
sequence_numbers = st.one_of(st.none(), st.integers(-2, 9), st.integers(-(2**63), 2**63 - 1))
stored_fragments = st.builds(StoredFragment, arrivals, sequence_numbers, any_text)
stored_closings = st.builds(StoredClosing, arrivals, st.sampled_from(Rank), any_text)


@st.composite
def fragment_sets(draw: st.DrawFn) -> list[StoredFragment]:
    """Draw the fragments of a part: one per arrival, with one of several ways of numbering."""
    fragments = draw(st.lists(stored_fragments, max_size=8, unique_by=lambda fragment: fragment.arrival))
    numbering = draw(st.sampled_from(["own", "none", "constant", "increasing"]))
    if numbering == "own":
        return fragments
    return [
        fragment._replace(sequence_number={"none": None, "constant": 0, "increasing": number}[numbering])
        for number, fragment in enumerate(sorted(fragments))
    ]


def columns_of(fragments: list[StoredFragment]) -> FragmentColumns:
    """Return fragments in columns, sorted by arrival."""
    ordered = sorted(fragments, key=lambda fragment: fragment.arrival)
    return FragmentColumns(
        [fragment.arrival.entry.ms for fragment in ordered],
        [fragment.arrival.entry.seq for fragment in ordered],
        [fragment.sequence_number for fragment in ordered],
        [fragment.delta for fragment in ordered],
        [fragment.arrival.position for fragment in ordered],
    )


def log_of(
    fragments: list[StoredFragment], closings: list[StoredClosing] | None = None, item_id: str | None = None
) -> PartLog:
    """Return a log with these events, in one chunk."""
    return decode_log(encode_chunk(columns_of(fragments), closings or [], item_id))


class Chunk(NamedTuple):
    """The events that a batch adds to a part."""

    fragments: list[StoredFragment]
    closings: list[StoredClosing]
    item_id: str | None

    def encoded(self) -> bytes:
        """Return the chunk as it is stored."""
        return encode_chunk(columns_of(self.fragments), self.closings, self.item_id)

    @property
    def began(self) -> Arrival:
        """Return the arrival of the earliest event."""
        events: list[StoredFragment | StoredClosing] = [*self.fragments, *self.closings]
        return min(event.arrival for event in events)


chunks = st.builds(
    Chunk,
    st.lists(stored_fragments, max_size=4),
    st.lists(stored_closings, max_size=2),
    st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)),
).filter(lambda chunk: chunk.fragments or chunk.closings)

kinds: st.SearchStrategy[Kind] = st.sampled_from(["refusal", "reasoning", "reasoning_summary", "output_text"])
stream_keys = st.builds(
    StreamKey,
    st.sampled_from(["response", "item"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
)
part_keys = st.builds(PartKey, stream_keys, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), kinds)


# ----------------------------------------------------------------------------------------------- responses

Ids = Literal["stable", "changing", "missing", "long"]
Numbers = Literal["increasing", "constant", "missing"]

_DELTA: dict[Kind, str] = {
    "refusal": "response.refusal",
    "reasoning": "response.reasoning_text",
    "reasoning_summary": "response.reasoning_summary_text",
    "output_text": "response.output_text",
}
_COPY: dict[Kind, str] = {
    "refusal": "refusal",
    "reasoning": "reasoning_text",
    "reasoning_summary": "summary_text",
    "output_text": "output_text",
}


@dataclass(slots=True)
class PlannedPart:
    """A text of a response, and the events by which the server sends it."""

    kind: Kind
    output_index: int
    content_index: int
    deltas: list[str]
    text: str
    """Authoritative text, which may differ from the deltas; empty if the text is withheld."""
    done: bool
    content_part: bool
    checksum: bool = False
    """True if its `.done` has a checksum, equal to that of the deltas, in place of the text."""
    by_producer: bool = False
    """True if the producer wrote its `.done`."""
    withheld: bool = False
    other: Literal["done", "checksum", "final copy"] | None = None
    """Event with a different text, sent later and with no higher rank, so that the first text counts."""

    @property
    def final_text(self) -> str:
        """Return the text in the response's final copy."""
        return self.text + _OTHER if self.other == "final copy" else self.text


@dataclass(slots=True)
class PlannedItem:
    """An output item with its parts. Its end may have full copies or none, or be missing (`end=None`)."""

    type: Literal["message", "reasoning"]
    item_id: str
    position: int
    parts: list[PlannedPart]
    end: Literal["copies", "bare"] | None
    hidden: bool = False
    """True if only the response's final copy contains the item."""


class Expected(NamedTuple):
    """The expected output for a finished part, for any schedule."""

    text: str
    status: Status
    reason: str | None
    integrity: Integrity
    delta_count: int
    integrity_source: IntegritySource | None = None
    reason_class: ReasonClass | None = None


@dataclass(slots=True)
class PlannedResponse:
    """A stream of events, and its expected texts.

    For all of them: the deltas of a part are not empty, and come before its closing events; all authoritative
    texts of a part are equal, except as `other` says; an item that ends without copies gets none from its
    response; events are repeated only if they are numbered, and immediately; if all events have the same
    number, the deltas of a part are not all the same; losses are reported first, or not at all.
    """

    response_id: str | None
    events: list[Json] = field(default_factory=list)
    expected: dict[PartKey, Expected] = field(default_factory=dict)
    contradicted: set[PartKey] = field(default_factory=set)
    """Parts for which a different text is sent too."""
    repeats: bool = False
    """True if a producer's retry has stored some events twice."""


class _Ids:
    """Item ids as a server gives them: stable, too long, a new one with each event, or none."""

    def __init__(self, how: Ids) -> None:
        self._how = how
        self._count = 0

    def __call__(self, item: PlannedItem) -> Json:
        if self._how == "missing":
            return {}
        if self._how == "long":
            return {"item_id": f"{item.item_id}." + "x" * limits.ID}
        self._count += 1
        return {"item_id": item.item_id if self._how == "stable" else f"{item.item_id}.{self._count}"}

    def of_copy(self, item: PlannedItem) -> Json:
        """Return the id of an item in a full copy, as a field."""
        return {"id": given} if (given := self(item).get("item_id")) is not None else {}


def _where(part: PlannedPart) -> Json:
    index = "summary_index" if part.kind == "reasoning_summary" else "content_index"
    return {"output_index": part.output_index, index: part.content_index}


def _text_field(part: PlannedPart) -> str:
    return "refusal" if part.kind == "refusal" else "text"


def _copy_of_part(part: PlannedPart, *, final: bool = False) -> Json:
    return {"type": _COPY[part.kind], _text_field(part): part.final_text if final else part.text}


def _copy_of_item(item: PlannedItem, ids: _Ids, *, bare: bool = False, final: bool = False) -> Json:
    content = [_copy_of_part(part, final=final) for part in item.parts if part.kind != "reasoning_summary"]
    summary = [_copy_of_part(part, final=final) for part in item.parts if part.kind == "reasoning_summary"]
    copy = {"type": item.type, **ids.of_copy(item), "content": [] if bare else content}
    return copy | ({"summary": [] if bare else summary} if item.type == "reasoning" else {})


def _events_of_part(item: PlannedItem, part: PlannedPart, ids: _Ids) -> list[Json]:
    events = [
        {"type": f"{_DELTA[part.kind]}.delta", "delta": delta, **_where(part), **ids(item)}
        for delta in part.deltas
    ]
    if part.withheld:
        where = {"output_index": part.output_index, "content_index": part.content_index}
        events.append({"type": "deltaloom.part.redacted", "kind": part.kind, **where, **ids(item)})
    if part.done:
        text = _checksum_of(part.text) if part.checksum else {_text_field(part): part.text}
        source = {"integrity_source": "producer"} if part.by_producer else {}
        events.append(_done(part, text) | source | ids(item))
    if part.other == "done":
        events.append(_done(part, {_text_field(part): part.text + _OTHER}) | ids(item))
    elif part.other == "checksum":
        events.append(_done(part, _checksum_of(part.text + _OTHER)) | ids(item))
    if part.content_part:
        events.append(
            {"type": "response.content_part.done", "part": _copy_of_part(part), **_where(part), **ids(item)}
        )
    return events


def _done(part: PlannedPart, text: Json) -> Json:
    return {"type": f"{_DELTA[part.kind]}.done", **text, **_where(part)}


def _checksum_of(text: str) -> Json:
    data = text.encode()
    return {"text_sha256": sha256(data).hexdigest(), "text_bytes": len(data)}


_OTHER = "\N{DOUBLE DAGGER}"
"""Suffix of a different text, which also sorts after the first text."""


@st.composite
def _planned_part(
    draw: st.DrawFn, kind: Kind, position: int, output_index: int, content_index: int
) -> PlannedPart:
    text = draw(whole_text)
    deltas = draw(st.one_of(st.just([]), cut_by_code_unit(text), cut_by_code_unit(text)))
    if draw(st.integers(0, 9)) == 0:
        return PlannedPart(
            kind, output_index, content_index, [], "", done=False, content_part=False, withheld=True
        )
    done = draw(st.booleans()) or (output_index != position and not deltas)
    checksum = done and bool(deltas) and draw(st.integers(0, 3)) == 0
    if not checksum and draw(st.integers(0, 4)) == 0:
        text += "\N{REFERENCE MARK}"  # no deltas contain this character
    if not deltas:  # equal whole texts may be copies: see tests/handlers/core/test_copies.py
        text += f" {output_index}.{content_index}"
    has_content_part = kind != "reasoning_summary" and draw(st.booleans())
    part = PlannedPart(kind, output_index, content_index, deltas, text, done, has_content_part, checksum)
    if done and not checksum:
        part.by_producer = draw(st.booleans())
        part.other = draw(st.sampled_from([None, None, None, "done", "checksum", "final copy"]))
    return part


@st.composite
def _planned_item(draw: st.DrawFn, position: int, offset: int, *, may_hide: bool) -> PlannedItem:
    output_index = position + offset
    kind_groups: list[tuple[Kind, ...]]
    item_type: Literal["message", "reasoning"] = draw(st.sampled_from(["message", "reasoning"]))
    if item_type == "message":
        kind_groups = [("refusal", "output_text")]
    else:
        kind_groups = [("reasoning",), ("reasoning_summary",)]
    parts = [
        draw(_planned_part(draw(st.sampled_from(group)), position, output_index, content_index))
        for group in kind_groups
        for content_index in range(draw(st.integers(0 if len(kind_groups) > 1 else 1, 2)))
    ]
    end: Literal["copies", "bare"] | None = draw(st.sampled_from(["copies", "bare", None]))
    hidden = may_hide and draw(st.integers(0, 4)) == 0
    return PlannedItem(item_type, f"it_{position}", position, parts, end, hidden)


def _interleaved(draw: st.DrawFn, lists: Sequence[list[Json]]) -> list[Json]:
    """Return all events in a random order that keeps each list's order."""
    turns = draw(st.permutations([i for i, each in enumerate(lists) for _ in each]))
    iterators = [iter(each) for each in lists]
    return [next(iterators[turn]) for turn in turns]


def _numbered(draw: st.DrawFn, events: list[Json], how: Numbers) -> list[Json]:
    if how == "missing":
        return events
    if how == "constant":
        return [event | {"sequence_number": 0} for event in events]
    number = draw(st.integers(-1, 3))
    numbered = []
    for event in events:
        number += draw(st.sampled_from([1, 1, 1, 7]))
        numbered.append(event | {"sequence_number": number})
    return numbered


def _repair(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@st.composite
def responses(
    draw: st.DrawFn, *, repeats: bool = True, by_item: bool | None = None, losses: bool = True
) -> PlannedResponse:
    """Draw a response as some server streams it, with interleaved parts and odd habits.

    Args:
        draw: passed by hypothesis.
        repeats: whether a producer's retry may store an event twice, immediately one after the other.
        by_item: whether the producer gives no response id; None for either.
        losses: whether the producer may report that it lost events.
    """
    if by_item is None:
        by_item = draw(st.booleans())
    offset = draw(st.sampled_from([0, 0, 1]))
    how_ids: Ids = (
        "stable" if by_item or offset else draw(st.sampled_from(["stable", "changing", "missing", "long"]))
    )
    ids = _Ids(how_ids)
    items = [
        draw(_planned_item(position, offset, may_hide=not offset))
        for position in range(draw(st.integers(1, 3)))
    ]
    end = draw(st.sampled_from([*_ENDS, "copies", "empty", None]))
    lost = losses and draw(st.integers(0, 4)) == 0
    for item in items:
        if end == "copies" and item.end == "bare":
            item.end = "copies"
        for part in item.parts:
            part.checksum &= not lost
    streams = [_events_of_item(draw, item, offset, ids) for item in items if not item.hidden]
    output = [_copy_of_item(item, ids, bare=end != "copies", final=True) for item in items]
    response_id = None if by_item else draw(st.sampled_from(["resp_1", "r:2", "ré 3", "r" * limits.ID]))
    loss = {"type": "deltaloom.producer.loss", "response_id": response_id or "nobody", "dropped": 1}
    events: list[Json] = [
        {"type": "response.created", "response": {"id": "resp", "model": "m-1", "output": []}},
        *([loss] if lost else []),
        *_interleaved(draw, streams),
        *_terminal(end, output),
    ]
    how_numbers: Numbers = draw(st.sampled_from(["increasing", "increasing", "constant", "missing"]))
    if any(len(part.deltas) > 1 == len(set(part.deltas)) for item in items for part in item.parts):
        how_numbers = "increasing"  # an equal delta with an equal number is a repeat
    events = _numbered(draw, events, how_numbers)
    plan = PlannedResponse(response_id)
    if repeats and how_numbers == "increasing":
        times = [draw(st.sampled_from([1, 1, 1, 2])) for _ in events]
        plan.repeats = max(times) > 1
        events = [event for event, n in zip(events, times, strict=True) for _ in range(n)]
    plan.events = events
    plan.expected = _expected(plan.response_id, items, end)
    if lost and not by_item:
        plan.expected = {
            part: what._replace(integrity="repaired") if what.integrity == "verified" else what
            for part, what in plan.expected.items()
        }
    plan.contradicted = _contradicted(plan.response_id, items, end, offset)
    return plan


def _events_of_item(draw: st.DrawFn, item: PlannedItem, offset: int, ids: _Ids) -> list[Json]:
    events = _interleaved(draw, [_events_of_part(item, part, ids) for part in item.parts])
    if item.end is not None:
        copy = _copy_of_item(item, ids, bare=item.end == "bare")
        end = {"type": "response.output_item.done", "output_index": item.position + offset, "item": copy}
        events.append(end)
    return events


_ENDS = ("incomplete", "failed", "error", "error+failed", "cancelled", "disconnected")
"""Ends of a response without copies of its texts."""


def _terminal(end: str | None, output: list[Json]) -> list[Json]:
    error = {"code": "server_error", "message": "no"}
    failed = {"type": "response.failed", "response": {"error": error, "output": output}}
    events: dict[str | None, list[Json]] = {
        "copies": [{"type": "response.completed", "response": {"output": output}}],
        "empty": [{"type": "response.completed", "response": {"output": []}}],
        "incomplete": [
            {
                "type": "response.incomplete",
                "response": {"incomplete_details": {"reason": "content_filter"}, "output": output},
            }
        ],
        "cancelled": [{"type": "response.cancelled", "response": {"output": output}}],
        "disconnected": [
            {
                "type": "response.incomplete",
                "response": {"incomplete_details": {"reason": "client_disconnected"}, "output": output},
            }
        ],
        "failed": [failed],
        "error": [{"type": "error", **error}],
        "error+failed": [{"type": "error", "error": error}, failed],
        None: [],
    }
    return events[end]


def _expected(response_id: str | None, items: list[PlannedItem], end: str | None) -> dict[PartKey, Expected]:
    """Return the expected texts of the plan, by the first event that closes a part and gives it a text."""
    expected: dict[PartKey, Expected] = {}
    shown = {
        (item.item_id if response_id is None else None, part.kind)
        for item in items
        if not item.hidden
        for part in item.parts
        if part.deltas
        or part.done
        or part.content_part
        or part.withheld
        or (item.end == "copies" and part.text)
    }
    for item in items:
        key = StreamKey("item", item.item_id) if response_id is None else StreamKey("response", response_id)
        for part in item.parts:
            part_key = PartKey(key, part.output_index, part.content_index, part.kind)
            if item.hidden:
                seen = (item.item_id if response_id is None else None, part.kind) in shown
                if end == "copies" and part.text and not seen:
                    text = _repair(part.final_text)
                    expected[part_key] = Expected(text, "completed", None, "repaired", 0, "provider")
                continue
            what = _expected_of(part, item, end, by_item=response_id is None, shown=shown)
            if what is not None:
                expected[part_key] = what
    return expected


def _contradicted(
    response_id: str | None, items: list[PlannedItem], end: str | None, offset: int
) -> set[PartKey]:
    """Return the parts for which a text is sent that differs from the one that comes out."""
    found = set()
    for item in items:
        key = StreamKey("item", item.item_id) if response_id is None else StreamKey("response", response_id)
        # If there is no response id, an item has only its own copies.
        kinds = [
            part.kind for each in items if response_id is not None or each is item for part in each.parts
        ]
        for part in item.parts:
            # A final copy can contradict a text only if that is the only one of its kind.
            alone = kinds.count(part.kind) == 1
            in_copy = part.other == "final copy" and end == "copies" and not offset and alone
            by_event = part.other in {"done", "checksum"}
            if not item.hidden and (by_event or (in_copy and _repair(part.final_text) != _repair(part.text))):
                found.add(PartKey(key, part.output_index, part.content_index, part.kind))
    return found


def _expected_of(
    part: PlannedPart,
    item: PlannedItem,
    end: str | None,
    *,
    by_item: bool,
    shown: set[tuple[str | None, Kind]],
) -> Expected | None:
    joined, text = _repair("".join(part.deltas)), _repair(part.text)
    if part.withheld:
        return Expected("", "completed", None, "redacted", 0)
    integrity: Integrity = "verified" if joined == text else "repaired"
    source: IntegritySource = "producer" if part.by_producer else "provider"
    whole = Expected(text, "completed", None, integrity, len(part.deltas), source)
    bare = Expected(joined, "completed", None, "unverified", len(part.deltas))
    if part.done or part.content_part or item.end == "copies":
        return whole
    if not part.deltas:  # no event of the part before the end of its response
        only_in_copy = end == "copies" and (item.item_id if by_item else None, part.kind) not in shown
        return whole if only_in_copy else None
    if item.end == "bare":
        return bare
    if by_item and end in {"empty", "error"}:  # these ends name no items
        return None
    failed = bare._replace(status="failed", reason="server_error", reason_class="error")
    cancelled = bare._replace(status="cancelled", reason="cancelled", reason_class="cancelled")
    return {
        "copies": whole,
        "empty": bare,
        "incomplete": bare._replace(status="incomplete", reason="content_filter", reason_class="safety"),
        "cancelled": cancelled,
        "disconnected": cancelled._replace(reason="client_disconnected"),
        "failed": failed,
        "error": failed,
        "error+failed": failed,
        None: None,
    }[end]


# --------------------------------------------------------------------- streams that no server would send


@st.composite
def unruly_events(draw: st.DrawFn) -> list[Json]:
    """Draw events in any order: deltas after the end, contradicting closings, random numbers.

    Two rules hold: an item keeps its id, and no event follows a `response.completed`.
    """
    events = draw(st.lists(_unruly_event(), min_size=1, max_size=8))
    ends = [number for number, event in enumerate(events) if event["type"] == "response.completed"]
    return events[: ends[0] + 1] if ends else events


@st.composite
def _unruly_event(draw: st.DrawFn) -> Json:
    texts = st.sampled_from(["", "a", "b", "ab"])
    index = draw(st.sampled_from([0, 0, 1]))
    place = {
        "item_id": f"it_{index}",
        "output_index": index,
        "content_index": draw(st.sampled_from([0, 0, 1])),
    }

    def refusal() -> Json:
        return {"type": "refusal", "refusal": draw(texts)}

    def message(index: int) -> Json:
        content = [refusal() for _ in range(draw(st.sampled_from([1, 1, 2])))]
        return {"type": "message", "id": f"it_{index}", "content": content}

    def ended() -> Json:
        output = [message(position) for position in range(draw(st.integers(0, 2)))]
        return {"type": "response.completed", "response": {"output": output}}

    def item_event(name: str) -> Json:
        item = draw(st.sampled_from([message(index), message(index), {"type": "function_call"}]))
        return {"type": f"response.output_item.{name}", "output_index": index, "item": item}

    def part_event(name: str) -> Json:
        return {"type": f"response.content_part.{name}", "part": refusal(), **place}

    def done(text: Json) -> Json:
        source = draw(st.sampled_from([{}, {"integrity_source": "producer"}]))
        return {"type": "response.refusal.done", **text, **source, **place}

    def delta(event_type: str) -> Json:
        return {"type": f"response.{event_type}.delta", "delta": draw(texts), **place}

    kinds_of_event: list[Callable[[], Json]] = [
        lambda: delta("refusal"),
        lambda: delta("refusal"),
        lambda: delta("reasoning_text"),
        lambda: done({"refusal": draw(texts)}),
        lambda: done({"refusal": draw(texts)}),
        lambda: done(_checksum_of(draw(texts))),
        lambda: {"type": "deltaloom.part.redacted", "kind": "refusal", **place},
        lambda: {"type": "deltaloom.producer.loss", "dropped": 1},
        lambda: item_event("done"),
        lambda: item_event("done"),
        lambda: item_event("added"),
        lambda: part_event("done"),
        lambda: part_event("added"),
        ended,
        lambda: {"type": "response.incomplete", "response": {}},
        lambda: {"type": "response.cancelled", "response": {}},
        lambda: {"type": "deltaloom.response.fallback", "from_model": draw(texts)},
    ]
    event = kinds_of_event[draw(st.integers(0, len(kinds_of_event) - 1))]()
    number = draw(st.sampled_from([None, 0, 1, 2, 3]))
    return event if number is None else event | {"sequence_number": number}


# ------------------------------------------------------------------------------------------------- entries


def entry_of(
    events: Sequence[Json], at: EntryId, response_id: str | None, *, array: bool = False, **context: str
) -> Entry:
    """Return an entry as a producer writes it, with one event or an array (always, if there are several)."""
    value = events if array or len(events) != 1 else events[0]
    body = json.dumps(value, separators=(",", ":")).encode()
    fields = {name.encode(): text.encode() for name, text in context.items()}
    if response_id is not None:
        fields[b"response_id"] = response_id.encode()
    return Entry(at, {b"event": body, **fields}, body, {})


@st.composite
def cut_into_entries(draw: st.DrawFn, plan: PlannedResponse, *, coalesce: int = 6) -> list[Entry]:
    """Draw a division of the response's events into entries, in order: one by one, or several in an array.

    All entries have the same context, which may be empty.
    """
    entries: list[Entry] = []
    context = draw(
        st.sampled_from(
            [
                {},
                {"tenant": "acme"},
                {"tenant": "other", "model": "m-2"},
                {name: "x" * most for name, most in limits.CONTEXT.items()},
                {"tenant": "t" * (limits.NAME + 1), "provider": "openai", "reference": "https://trace/1"},
            ]
        )
    )
    rest = plan.events
    while rest:
        size = draw(st.integers(1, coalesce))
        at = EntryId(1_700_000_000_000 + len(entries) // 3, len(entries) % 3)
        entries.append(entry_of(rest[:size], at, plan.response_id, array=draw(st.booleans()), **context))
        rest = rest[size:]
    return entries
