"""Responses with far too many parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostile.entry import entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator


def many_parts(mutator: Mutator) -> Iterator[Entry]:
    """Send items with 30,000 parts; 100,000 parts over many entries; a new part with each delta."""
    yield _item(mutator, 30_000)
    yield from _growing(mutator, entries=20, at_once=5000, ends=True)
    yield _copy(mutator, 30_000)
    while True:
        kind = mutator.rng.randrange(4)
        if kind == 0:
            yield _item(mutator, mutator.size(30_000))
        elif kind == 1:
            yield _reasoning(mutator, mutator.size(5000))
        elif kind == 2:  # noqa: PLR2004 - the third kind
            yield _copy(mutator, mutator.size(30_000))
        else:
            yield from _growing(
                mutator, entries=mutator.size(100), at_once=mutator.size(1000), ends=mutator.chance(0.5)
            )


def _item(mutator: Mutator, parts: int) -> Entry:
    content = [{"type": "refusal", "refusal": "n"}] * parts
    event = {"type": "response.output_item.done", "output_index": 0, "item": _message(content)}
    return entry(event, response_id=mutator.id())


def _message(content: list[Any]) -> dict[str, Any]:
    return {"type": "message", "id": "m", "content": content}


def _reasoning(mutator: Mutator, parts: int) -> Entry:
    where = {"type": "response.reasoning_text.done", "output_index": 0}
    return entry(
        [{**where, "content_index": index, "text": "t"} for index in range(parts)], response_id=mutator.id()
    )


def _copy(mutator: Mutator, texts: int) -> Entry:
    kind = mutator.pick("refusal", "reasoning_text", "summary_text")
    text = {"type": kind, "refusal" if kind == "refusal" else "text": "n"}
    item = _message([text] * texts) if kind == "refusal" else {"type": "reasoning", "content": [text] * texts}
    return entry({"type": "response.completed", "response": {"output": [item]}}, response_id=mutator.id())


def _delta(index: int) -> dict[str, Any]:
    where = {"output_index": 0, "content_index": index}
    return {"type": "response.reasoning_text.delta", **where, "delta": "d"}


def _growing(mutator: Mutator, *, entries: int, at_once: int, ends: bool) -> Iterator[Entry]:
    """Yield entries of one response, each with new parts only."""
    owner = mutator.id()
    for number in range(entries):
        first = number * at_once
        yield entry([_delta(first + n) for n in range(at_once)], response_id=owner)
    if ends:
        yield entry({"type": "response.completed", "response": {}}, response_id=owner)
