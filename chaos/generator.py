"""Seeded responses of all kinds, as real servers stream them and real producers store them.

A response is made completely before its first entry is stored: its entries in order, and its expected
outputs. The same seed and number give the same response, so that a failed one can be examined:
`python -m chaos.generator SEED PRODUCER NUMBER` prints it.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from chaos.model import Bad, Event, Expectation, expected_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_EVENT_BYTES = 8192
"""Setting of the bench's workers: a larger event becomes a dead letter."""

MAX_ARRAY_LENGTH = 64
"""Setting of the bench's workers: an entry with a longer array becomes a dead letter."""

TAG = "chaos"
"""Name of the field that identifies an entry as `<response>/<number>`, so that a producer can look for it."""

_WORDS = (  # separated by spaces; other white space counts as words
    "I can't help with that request . The user wants to know why , but first let me check each step \n "
    'carefully : maybe there is another way ? Größe naïve café 東京 привет не знаю 🙂 👩‍👩‍👧 ** 42 3.14 " \\ '
    "reasonable answer however policy safety weapon medical advice instead consider alternatives { } \t"
)

_VOCABULARY = _WORDS.split(" ")

Step = Event | Bad


class EntryToStore(NamedTuple):
    """An entry to add to the input."""

    fields: dict[str, str | bytes]
    events: int


class Content(NamedTuple):
    """The content from which a response's expected outputs follow."""

    groups: tuple[list[Step], ...] = ()
    """Events of each entry."""
    response_id: str | None = None
    context: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Response:
    """A generated response."""

    name: str
    entries: tuple[EntryToStore, ...]
    expected: Expectation
    slow: bool
    """True if its producer is slow, so that the response meets many faults."""
    content: Content = field(default_factory=Content)

    @property
    def events(self) -> int:
        """Return the number of events in its entries."""
        return sum(entry.events for entry in self.entries)

    def stored_as(self, numbers: Sequence[int]) -> Response:
        """Return this response with its entries in the order in which they are stored, with repeats."""
        groups, response_id, context = self.content
        expected = expected_of([groups[number] for number in numbers], response_id, dict(context))
        entries = tuple(self.entries[number] for number in numbers)
        return replace(self, entries=entries, expected=expected)


@dataclass(slots=True)
class _Piece:
    """A part to be streamed."""

    kind: str
    index: int
    text: str
    deltas: list[str]


@dataclass(slots=True)
class _Item:
    type: str
    id: str | None
    output_index: int
    pieces: list[_Piece] = field(default_factory=list)


class _Style(NamedTuple):
    """Habits of a server and its producer, constant within a response."""

    response_keyed: bool
    numbers: str
    deltas: bool
    done: bool
    part_done: bool
    item_done: str
    ending: str
    interleaved: bool
    item_ids: str
    first_index: int
    array_length: int
    shape: str
    shifted: bool
    """True if copies list a text at a different place than its deltas."""


_NAMES = {
    "refusal": ("response.refusal", "content_index", "refusal", "refusal"),
    "reasoning": ("response.reasoning_text", "content_index", "text", "reasoning_text"),
    "reasoning_summary": ("response.reasoning_summary_text", "summary_index", "text", "summary_text"),
    "output_text": ("response.output_text", "content_index", "text", "output_text"),
}
"""Names of each kind: event family, index field, text field of `.done`, and type of its copy."""


def make_response(seed: str, producer: int, number: int, *, sound: bool = False) -> Response:
    """Return the response with this number. A `sound` one has only events that can be handled."""
    rng = random.Random(f"{seed}/{producer}/{number}")
    return _Maker(rng, f"r{seed}-{producer}-{number}", sound=sound).make()


class _Maker:
    def __init__(self, rng: random.Random, name: str, *, sound: bool) -> None:
        self.rng = rng
        self.name = name
        self.sound = sound
        self.style = self._style()

    def make(self) -> Response:
        items = self._items()
        steps = self._numbered([*self._created(), *self._streamed(items), *self._ended(items)])
        groups = self._with_noise(self._grouped(self._cut_short(steps)))
        groups = self._with_repeats(groups)
        context = self._context()
        response_id = self.name if self.style.response_keyed else None
        expected = expected_of(groups, response_id, context)
        fields = dict(context) if response_id is None else {**context, "response_id": response_id}
        entries = tuple(self._stored(number, group, fields) for number, group in enumerate(groups))
        content = Content(tuple(groups), response_id, context)
        return Response(self.name, entries, expected, slow=self._chance(0.1), content=content)

    def _chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def _style(self) -> _Style:
        rng = self.rng
        pick: Callable[..., str] = lambda **weights: rng.choices(list(weights), list(weights.values()))[0]  # noqa: E731
        keyed = self._chance(0.85)
        deltas = self._chance(0.92)
        done = self._chance(0.75)
        part_done = self._chance(0.6)
        return _Style(
            response_keyed=keyed,
            numbers=pick(normal=60, gaps=14, missing=14, constant=8, negative=4),
            deltas=deltas,
            done=done,
            part_done=part_done,
            item_done=pick(full=60, bare=10, none=30),
            ending=pick(
                full=35,
                bare=15,
                nothing_said=5,
                incomplete=10,
                failed=8,
                cancelled=5,
                error=4,
                nested_error=4,
                cut=14,
            ),
            interleaved=self._chance(0.25),
            item_ids=pick(stable=85, fickle=8, none=7) if keyed else "stable",
            first_index=int(keyed and self._chance(0.05)),
            array_length=rng.choices([1, 4, 32], [50, 30, 20])[0],
            shape=pick(event=75, data=8, envelope=7, flat=10),
            shifted=self._chance(0.1),
        )

    # ---------------------------------------------------------------------- streamed events

    def _items(self) -> list[_Item]:
        items = []
        for position in range(self.rng.choices([1, 2, 3, 4], [40, 35, 15, 10])[0]):
            kind = self.rng.choices(["refusal", "reasoning", "function_call", "answer"], [35, 40, 8, 17])[0]
            item_type = {"refusal": "message", "answer": "message"}.get(kind, kind)
            item = _Item(item_type, f"item_{self.name}_{position}", position + self.style.first_index)
            if kind == "refusal":
                self._add(item, "refusal", self.rng.choices([1, 2], [85, 15])[0])
            elif kind == "answer":
                self._add(item, "output_text", 1)
            elif kind == "reasoning":
                texts = self.rng.choices([0, 1, 2], [40, 45, 15])[0]
                self._add(item, "reasoning", texts)
                self._add(item, "reasoning_summary", self.rng.randint(0 if texts else 1, 3))
            items.append(item)
        return items

    def _add(self, item: _Item, kind: str, count: int) -> None:
        for index in range(count):
            deltas = self._deltas()
            text = "".join(deltas)
            if self._chance(0.02) and len(deltas) > 1:
                del deltas[self.rng.randrange(len(deltas))]  # lost by the producer
            item.pieces.append(_Piece(kind, index, text, deltas if self.style.deltas else []))

    def _deltas(self) -> list[str]:
        length = min(200, max(0, int(self.rng.lognormvariate(2.2, 1.0))))
        words = [self.rng.choice(_VOCABULARY) + self.rng.choice(("", " ", " ")) for _ in range(length)]
        if self._chance(0.05):
            words.insert(0, "")
        if self._chance(0.1):
            halves = json.loads(f'["\\ud83d", "\\ud{self.rng.choice(("e00", "e4f", "c4d"))}"]')
            at = self.rng.randint(0, len(words))
            words[at:at] = halves if self._chance(0.9) else halves[:1]
        return words

    def _created(self) -> Iterable[Step]:
        if self._chance(0.5):
            response: Event = {"id": self.name, "status": "in_progress", "output": []}
            if self._chance(0.7):
                response["model"] = "gpt-created"
            if self._chance(0.4):
                response["safety_identifier"] = f"user-{self.rng.randrange(1000)}"
            yield {"type": "response.created", "response": response}
        if self._chance(0.5):
            yield {"type": "response.in_progress", "response": {"id": self.name}}

    def _streamed(self, items: Sequence[_Item]) -> Iterable[Step]:
        if not self.style.interleaved:
            for item in items:
                yield from self._item(item, [self._piece(item, piece) for piece in item.pieces])
            return
        yield from self._interleaved([list(self._item(item, [self._mixed(item)])) for item in items])

    def _mixed(self, item: _Item) -> Iterable[Step]:
        yield from self._interleaved([list(self._piece(item, piece)) for piece in item.pieces])

    def _interleaved(self, sequences: Sequence[Sequence[Step]]) -> Iterable[Step]:
        """Yield all steps in a random order that keeps the order of each sequence."""
        streams = [iter(sequence) for sequence in sequences]
        while streams:
            stream = self.rng.choice(streams)
            step = next(stream, None)
            if step is None:
                streams.remove(stream)
            else:
                yield step

    def _item(self, item: _Item, pieces: Sequence[Iterable[Step]]) -> Iterable[Step]:
        where = {"output_index": item.output_index}
        if self._chance(0.7):
            yield {"type": "response.output_item.added", **where, "item": {"type": item.type}}
        if item.type == "function_call":
            for _ in range(self.rng.randint(1, 5)):
                yield {
                    "type": "response.function_call_arguments.delta",
                    **where,
                    "delta": '{"a',
                    **self._id(item),
                }
        for piece in pieces:
            yield from piece
        if self.style.item_done != "none":
            yield {
                "type": "response.output_item.done",
                **where,
                "item": self._copy(item, self.style.item_done == "full"),
            }

    def _piece(self, item: _Item, piece: _Piece) -> Iterable[Step]:
        family, index, text_field, copy_type = _NAMES[piece.kind]
        where = {"output_index": item.output_index, index: piece.index}
        for delta in piece.deltas:
            event: Event = {"type": f"{family}.delta", **self._id(item), **where, "delta": delta}
            if self._chance(0.05):
                event["obfuscation"] = "x" * self.rng.randint(1, 60)
            yield event
        if self.style.done:
            yield {"type": f"{family}.done", **self._id(item), **where, text_field: piece.text}
        if self.style.part_done and index == "content_index":
            part = {"type": copy_type, text_field: piece.text}
            yield {"type": "response.content_part.done", **self._id(item), **where, "part": part}

    def _id(self, item: _Item) -> Event:
        if self.style.item_ids == "none":
            return {}
        if self.style.item_ids == "fickle":
            return {"item_id": f"{item.id}_{self.rng.randrange(10**6)}"}
        return {"item_id": item.id}

    def _copy(self, item: _Item, full: bool) -> Event:  # noqa: FBT001
        copy: Event = {"type": item.type}
        if self.style.item_ids != "none":
            copy["id"] = item.id if self.style.item_ids == "stable" else f"{item.id}_copy"
        if item.type == "function_call":
            return {**copy, "arguments": "{}"}
        content = [p for p in item.pieces if p.kind != "reasoning_summary"] if full else []
        copy["content"] = [{"type": _NAMES[p.kind][3], _NAMES[p.kind][2]: p.text} for p in content]
        if self.style.shifted and len(content) == 1:
            copy["content"].insert(0, {"type": "vendor_part"})
        if item.type == "reasoning":
            summary = [p for p in item.pieces if p.kind == "reasoning_summary"] if full else []
            copy["summary"] = [{"type": "summary_text", "text": p.text} for p in summary]
        return copy

    def _ended(self, items: Sequence[_Item]) -> Iterable[Step]:
        ending = self.style.ending
        keyed = self.style.response_keyed
        # If there is no response id, the items of the final copy name what it ends.
        named = [] if keyed else [self._copy(item, full=False) for item in items]
        code = self.rng.choice(["server_error", "rate_limit_exceeded", "content_policy_violation"])
        error = {"code": code, "message": "sorry"}
        if ending == "full":
            copy_items = [self._copy(item, full=True) for item in items]
            yield {"type": "response.completed", "response": {"id": self.name, "output": copy_items}}
        elif ending == "bare":
            yield {"type": "response.completed", "response": {"id": self.name, "output": named}}
        elif ending == "nothing_said":
            yield {"type": "response.completed", "response": {}}
        elif ending == "incomplete":
            details = {"reason": self.rng.choice(["max_output_tokens", "content_filter"])}
            yield {
                "type": "response.incomplete",
                "response": {"incomplete_details": details, "output": named},
            }
        elif ending == "cancelled":
            yield {"type": "response.cancelled", "response": {"output": named}}
        elif ending in {"error", "nested_error"}:
            yield {"type": "error", **(error if ending == "error" else {"error": error})}
        if ending == "failed" or (ending in {"error", "nested_error"} and self._chance(0.5)):
            yield {"type": "response.failed", "response": {"error": error, "output": named}}

    def _cut_short(self, steps: list[Step]) -> list[Step]:
        """Cut most responses that do not complete at a random place."""
        ending = self.style.ending
        cut_short = {"incomplete", "failed", "cancelled", "error", "nested_error", "cut"}
        if ending not in cut_short or self._chance(0.2):
            return steps
        ends = {"response.incomplete", "response.failed", "response.cancelled", "error"}
        last = [step for step in steps if isinstance(step, dict) and step["type"] in ends]
        body = steps[: len(steps) - len(last)]
        return [*body[: self.rng.randint(min(1, len(body)), len(body))], *last]

    def _numbered(self, steps: Iterable[Step]) -> list[Step]:
        numbered: list[Step] = []
        number = {"normal": self.rng.choice([0, 1, 700]), "negative": -50}.get(self.style.numbers, 0)
        for step in steps:
            if isinstance(step, dict) and self.style.numbers != "missing":
                step["sequence_number"] = number
                if self.style.numbers != "constant":
                    number += 1 if self.style.numbers != "gaps" else self.rng.choice((1, 1, 2, 9))
            numbered.append(step)
        return numbered

    # ---------------------------------------------------------------------- stored entries

    def _grouped(self, steps: Sequence[Step]) -> list[list[Step]]:
        groups: list[list[Step]] = []
        at = 0
        while at < len(steps):
            length = self.rng.randint(1, self.style.array_length)
            groups.append(list(steps[at : at + length]))
            at += length
        return groups or [[{"type": "keepalive"}]]

    def _with_noise(self, groups: list[list[Step]]) -> list[list[Step]]:
        """Insert bad events and unknown types, alone and inside of arrays."""
        if self._chance(0.3):
            groups.insert(self.rng.randint(0, len(groups)), [self._unknown()])
        if self.sound:
            return groups
        if self._chance(0.06):
            for _ in range(self.rng.randint(1, 3)):
                group = self.rng.choice(groups)
                group.insert(self.rng.randint(0, len(group)), self._bad())
        if self._chance(0.04):
            groups.insert(self.rng.randint(0, len(groups)), [self._bad()])
        if self._chance(0.03):
            groups.insert(self.rng.randint(0, len(groups)), [self._bad_entry()])
        return groups

    def _unknown(self) -> Event:
        name = self.rng.choice(
            ["keepalive", "response.apply_patch_call_operation_diff.delta", "response.content_part.added"]
        )
        return {"type": name, **({"sequence_number": 3} if self._chance(0.5) else {})}

    def _bad(self) -> Bad:
        delta = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "bad"}
        item = {} if self.style.response_keyed else {"item_id": f"item_{self.name}_bad"}
        bad: list[Any] = [
            {name: value for name, value in delta.items() if name != "output_index"},
            {name: value for name, value in delta.items() if name != "type"},
            {**delta, "delta": 5},
            {**delta, "output_index": "x"},
            {**delta, "content_index": -1},
            {"type": "response.output_item.done", "output_index": 0},
            42,
            "delta",
        ]
        if not self.style.response_keyed:
            bad.append(delta)  # has neither a response id nor an item id
        if self._chance(0.08):
            return Bad(json.dumps({**delta, **item, "delta": "x" * MAX_EVENT_BYTES}), "oversized")
        return Bad(json.dumps(self.rng.choice(bad)), "invalid_event")

    def _bad_entry(self) -> Bad:
        """Return a body that makes its whole entry unreadable, to be stored alone."""
        good = '{"type":"keepalive"}'
        return self.rng.choice(
            [
                Bad('{"type":"response.refusal.delta","delta":"cut o', "malformed_json"),
                Bad("", "malformed_json"),
                Bad("[" * 5000, "malformed_json"),
                Bad("[" + ",".join([good] * (MAX_ARRAY_LENGTH + 1)) + "]", "oversized"),
            ]
        )

    def _with_repeats(self, groups: list[list[Step]]) -> list[list[Step]]:
        """Repeat some entries, as a client does that retries."""
        if self._chance(0.25):
            for _ in range(self.rng.randint(1, 3)):
                first = self.rng.randrange(len(groups))
                distance = self.rng.choice([1, 1, 2, 3, 5])
                groups.insert(min(first + distance, len(groups)), list(groups[first]))
        return groups

    def _context(self) -> dict[str, str]:
        context = {}
        if self._chance(0.5):
            context["tenant"] = self.rng.choice(["acme", "bücher"])
        if self._chance(0.4):
            context["model"] = "gpt-said"
        if self._chance(0.2):
            context["traceparent"] = f"00-{self.rng.getrandbits(128):032x}-{self.rng.getrandbits(64):016x}-01"
        return context

    def _stored(self, number: int, group: list[Step], context: dict[str, str]) -> EntryToStore:
        bodies = [step.json if isinstance(step, Bad) else json.dumps(step) for step in group]
        body = bodies[0] if len(bodies) == 1 else f"[{','.join(bodies)}]"
        tag = {TAG: f"{self.name}/{number}"}
        clean = all(isinstance(step, dict) for step in group)
        flat = len(group) == 1 and clean and "\\ud" not in body
        fields: dict[str, str | bytes]
        if self.style.shape == "flat" and flat:
            event = group[0]
            assert isinstance(event, dict)  # noqa: S101 - `clean` means this
            fields = {name: _flat(value) for name, value in event.items()}
        elif self.style.shape == "data":
            fields = {"__data__": body}
        elif self.style.shape == "envelope":
            return EntryToStore({"__data__": envelope(context, body), **tag}, len(group))
        else:
            fields = {"event": body}
        return EntryToStore({**fields, **context, **tag}, len(group))


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def envelope(headers: dict[str, str], body: str) -> bytes:
    """Return the value that FastStream's broker writes into `__data__`: magic number, version, headers, body.

    Integers are big-endian; offsets count from the first byte (FastStream 0.7, `BinaryMessageFormatV1`).
    """

    def string(text: str) -> bytes:
        raw = text.encode()
        return struct.pack(">H", len(raw)) + raw

    table = struct.pack(">H", len(headers)) + b"".join(string(n) + string(v) for n, v in headers.items())
    magic = b"\x89BIN\x0d\x0a\x1a\x0a"
    start = len(magic) + 2 + 8
    return magic + struct.pack(">HII", 1, start, start + len(table)) + table + body.encode()


def main(arguments: Sequence[str]) -> None:
    """Print a response: its entries and its expected outputs."""
    seed, producer, number = arguments
    response = make_response(seed, int(producer), int(number))
    for entry in response.entries:
        sys.stdout.write(f"{entry.fields}\n")
    for text in response.expected.texts:
        sys.stdout.write(f"-> {text}\n")
    sys.stdout.write(f"-> {response.expected._replace(texts=())}\n")


__all__ = [
    "MAX_ARRAY_LENGTH",
    "MAX_EVENT_BYTES",
    "TAG",
    "EntryToStore",
    "Response",
    "envelope",
    "make_response",
]

if __name__ == "__main__":
    main(sys.argv[1:])
