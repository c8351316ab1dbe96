"""Seeded responses with the shape of real streams, and their expected texts.

The shape is that of real streams: deltas with a median of 4 characters, about 100 deltas per text, events of
about 230 bytes with ids as the API makes them, and padding (`obfuscation`) in most streams. A response
reasons, openly or in a summary, and then refuses; all events around the deltas are included. The worker has
to process each of them: only the `.added` events have types that it merely counts.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.messages import Kind

_TEXT = """\
 the| the| a| a| to| of| of| and| in| is| it| I| I|'m|'s| we| can| not| help| with| that| this|,|,|.|.
 so| be| on| as| or| an| if| at| by| no| you| for| are| but| was| all| has| one| may| her| how| out| who
 use| ask| why| sorry| would| could| should| user| think| first| about| their| there| which| other| some
 what| when| your| from| have| will| more| been| than| them| then| only| like| over| such| also| into
ing|ed|ly|s|er|tion| question| request| answer| because| another| consider| therefore| information
 instruction| alternative| "|"| (|)|:|é|ü| 東京| 👋|😀"""
_WORDS = ["\n", *(word for line in _TEXT.splitlines() for word in line.split("|"))]
"""Deltas, with a median of 4 characters."""
_ESCAPED = {word: json.dumps(word, ensure_ascii=False) for word in _WORDS}
_PADDING = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7"
_PADDED_SHARE = 0.75
"""Share of responses with `obfuscation` in their deltas."""
FOUR_CHARACTERS = " you"


class PartName(NamedTuple):
    """The identity of a text."""

    response_id: str
    kind: Kind
    output_index: int
    content_index: int


class Family(NamedTuple):
    """The API's names for the events of a kind of text."""

    kind: Kind
    item_prefix: str
    item_type: str
    delta: str
    done: str
    text_field: str
    index_field: str
    part_event: str
    part_type: str


REASONING = Family(
    "reasoning", "rs_", "reasoning", "response.reasoning_text.delta", "response.reasoning_text.done",
    "text", "content_index", "response.content_part", "reasoning_text",
)  # fmt: skip
SUMMARY = Family(
    "reasoning_summary", "rs_", "reasoning",
    "response.reasoning_summary_text.delta", "response.reasoning_summary_text.done",
    "text", "summary_index", "response.reasoning_summary_part", "summary_text",
)  # fmt: skip
REFUSAL = Family(
    "refusal", "msg_", "message", "response.refusal.delta", "response.refusal.done",
    "refusal", "content_index", "response.content_part", "refusal",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of an input."""

    open_responses: int
    events: int
    """Approximate total number of events."""
    entry_events: int = 1
    """Number of events per entry; several are sent as a JSON array."""
    deltas: int = 100
    """Mean number of deltas per text."""
    refusals: bool = True
    """True if a response refuses after its reasoning."""
    closed: bool = True
    """True if texts and responses end; else the last event is a delta."""
    uniform: bool = False
    """True if all deltas have 4 characters, and all texts the same number of deltas."""


@dataclass(slots=True)
class Response:
    """A response: its events as JSON, its texts, and its important events."""

    id: str
    events: list[str] = field(default_factory=list)
    texts: dict[PartName, str] = field(default_factory=dict)
    opening: dict[int, PartName] = field(default_factory=dict)
    """Numbers of events with the first delta of a refusal, which must raise an alert."""
    closing: dict[int, PartName] = field(default_factory=dict)
    """Numbers of events that close a text."""


class Author:
    """A generator of successive responses."""

    def __init__(self, seed: str, shape: Shape) -> None:
        self._random = random.Random(seed)
        self._shape = shape

    def response(self, deltas: int) -> Response:
        """Return a response with texts of about this number of deltas."""
        chance = self._random
        response = Response(f"resp_{chance.getrandbits(200):050x}")
        padded = chance.random() < _PADDED_SHARE
        families = [chance.choice((REASONING, SUMMARY))]
        if self._shape.refusals:
            families.append(REFUSAL)
        snapshot = _snapshot(response.id)
        _append(response, "response.created", response={**snapshot, "status": "in_progress"})
        _append(response, "response.in_progress", response={**snapshot, "status": "in_progress"})
        items = [
            self._item(response, family, index, deltas, padded=padded)
            for index, family in enumerate(families)
        ]
        if self._shape.closed:
            usage = {"input_tokens": 328, "output_tokens": 2 * deltas, "total_tokens": 328 + 2 * deltas}
            end = {**snapshot, "status": "completed", "output": items, "usage": usage}
            _append(response, "response.completed", response=end)
        return response

    def _item(
        self, response: Response, family: Family, output_index: int, deltas: int, *, padded: bool
    ) -> dict[str, Any]:
        """Add the events of an item with one text; return the item as the response's end repeats it."""
        item_id = f"{family.item_prefix}{self._random.getrandbits(200):050x}"
        name = PartName(response.id, family.kind, output_index, 0)
        place: dict[str, Any] = {"item_id": item_id, "output_index": output_index, family.index_field: 0}
        content = "summary" if family is SUMMARY else "content"
        item: dict[str, Any] = {"id": item_id, "type": family.item_type, "status": "in_progress", content: []}
        part = {"type": family.part_type, family.text_field: ""}
        _append(response, "response.output_item.added", output_index=output_index, item=item)
        _append(response, f"{family.part_event}.added", **place, part=part)
        if family is REFUSAL:
            response.opening[len(response.events)] = name
        text = self._deltas(response, family, place, deltas, padded=padded)
        response.texts[name] = text
        if not self._shape.closed:
            return item
        part = {**part, family.text_field: text}
        item = {**item, "status": "completed", content: [part]}
        response.closing[len(response.events)] = name
        _append(response, family.done, **place, **{family.text_field: text})
        _append(response, f"{family.part_event}.done", **place, part=part)
        _append(response, "response.output_item.done", output_index=output_index, item=item)
        return item

    def _deltas(
        self, response: Response, family: Family, place: dict[str, Any], deltas: int, *, padded: bool
    ) -> str:
        # Deltas are formatted without json.dumps, since they are almost all of the events.
        words = [FOUR_CHARACTERS] * deltas if self._shape.uniform else self._random.choices(_WORDS, k=deltas)
        before = f'{{"type": "{family.delta}", "sequence_number": '
        after = f", {json.dumps(place)[1:-1]}, "
        for word in words:
            number = len(response.events)
            padding = f', "obfuscation": "{_PADDING[: 6 + 7 * number % 17]}"' if padded else ""
            response.events.append(f'{before}{number}{after}"delta": {_ESCAPED[word]}{padding}}}')
        return "".join(words)


def _append(response: Response, kind: str, /, **fields: Any) -> None:
    event = {"type": kind, "sequence_number": len(response.events), **fields}
    response.events.append(json.dumps(event, ensure_ascii=False))


def _snapshot(response_id: str) -> dict[str, Any]:
    return {
        "id": response_id,
        "object": "response",
        "created_at": 1761175243,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-5-mini-2025-08-07",
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "safety_identifier": "user-4711",
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }


def responses(author: Author, shape: Shape, chance: random.Random) -> Iterator[Response]:
    """Yield the successive responses of one of the concurrently open ones.

    The first one has a random shorter length, so that responses do not all end at the same time; the last one
    has the remaining length.
    """
    texts = 2 if shape.refusals else 1
    around = 3 + 5 * texts
    left = shape.events // shape.open_responses
    first = not shape.uniform
    while left > around:
        fits = (left - around) // texts
        deltas = shape.deltas if shape.uniform else round(shape.deltas * chance.uniform(0.6, 1.4))
        if first:
            deltas = round(deltas * chance.uniform(0.05, 1.0))
        response = author.response(max(1, min(deltas, fits)))
        first = False
        left -= len(response.events)
        yield response
