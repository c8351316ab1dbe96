"""Entries with fields that no producer writes, and events with fields that no server sends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hostile.entry import ANY, REFUSED, Entry, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Mutator

_NAMES = (b"\xff\xfe", b"\0", b"a\0b", b"\xed\xa0\x80", b"\x1b[2J", "é".encode(), b" ", b"event ", b"EVENT")


def field_names(mutator: Mutator) -> Iterator[Entry]:
    """Send thousands of fields, names of 100 kB, names that are not text, and no event."""
    yield Entry({b"%d" % n: b"" for n in range(4000)}, 1, REFUSED)
    yield Entry({b"n" * 100_000: b"", **dict.fromkeys(_NAMES, b"\xff")}, 1, REFUSED)
    yield Entry({b"type": b"response.refusal.delta", b"\xff" * 100_000: b"x"}, 1, REFUSED)
    while True:
        names = {mutator.pick(*_NAMES) * mutator.size(10_000): b"v" for _ in range(mutator.rng.randint(1, 5))}
        many = {b"f%d" % n: b"\xff" * mutator.rng.randint(0, 3) for n in range(mutator.size(4000))}
        kind = mutator.rng.randrange(3)
        if kind == 0:
            yield Entry({**names, **many}, 1, REFUSED)
        elif kind == 1:
            yield Entry({b"event": b'{"type":5}', **names, **many}, 1, REFUSED)
        else:
            yield Entry({b"type": b"h." + mutator.id().encode(), **names, **many}, 1, ANY)


_NUMBERS: tuple[Any, ...] = (1.0, "1", None, 1e0, -1, 2**63, "x", True, 1.5, [])
_ITEMS: tuple[Any, ...] = ("", None, 5, {}, "i", ["i"])
_CONTENTS: tuple[Any, ...] = (
    "text",
    [None],
    [[]],
    {},
    [{"type": "refusal"}],
    [{"type": "refusal", "refusal": 5}],
    1,
)


def odd_fields(mutator: Mutator) -> Iterator[Entry]:
    """Send events with fields of wrong types, singly and by the hundred thousand."""
    yield _odd_list(mutator, 180_000)
    while True:
        if mutator.chance(0.02):
            yield _odd_list(mutator, mutator.size(180_000))
        owner = mutator.id()
        pick = mutator.pick
        odd = {"sequence_number": pick(*_NUMBERS), "item_id": pick(*_ITEMS), "obfuscation": pick(*_CONTENTS)}
        item = {
            "type": pick("message", "reasoning", 5, None),
            "id": pick(*_ITEMS),
            "content": pick(*_CONTENTS),
        }
        error = pick("boom", 5, None, [], {"code": 500}, {"message": ["x"]}, {"code": {"code": 1}})
        output = pick({}, "x", [None], [item], [[]], None)
        events: list[Any] = [
            {**mutator.delta(), **odd, "output_index": pick(*_NUMBERS)},
            {**mutator.done(), **odd, "refusal": pick("no", None, 5, [])},
            {"type": "response.output_item.done", "output_index": pick(*_NUMBERS), "item": item},
            {"type": "response.content_part.done", **odd, "output_index": 0, "part": pick(*_CONTENTS)},
            {"type": "response.created", "response": pick({}, "x", None, {"model": 5}, {"output": output})},
            {"type": pick("response.failed", "error", "response.completed"), "error": error},
            {"type": "response.completed", "response": {"output": output, "error": error}},
        ]
        chosen = mutator.rng.sample(events, mutator.rng.randint(1, len(events)))
        yield entry(chosen * mutator.size(50), response_id=owner, ends=ANY)


def _odd_list(mutator: Mutator, length: int) -> Entry:
    """Return a full copy with only odd parts; with 180,000 parts it has the maximum size of an event."""
    item = {"type": "message", "id": "i", "content": [mutator.pick(None, 5)] * length}
    body = json.dumps(
        {"type": "response.output_item.done", "output_index": 0, "item": item}, separators=(",", ":")
    )
    return entry(body, response_id=mutator.id(), ends=ANY)
