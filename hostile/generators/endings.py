"""Ends of all spellings, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostile.entry import entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator

_STATUSES = ("completed", "incomplete", "failed", "cancelled", "in_progress", "", None, "COMPLETED")
_ENDS = ("completed", "done", "incomplete", "failed", "cancelled", "error")


def endings(mutator: Mutator) -> Iterator[Entry]:
    """Send ends that are repeated, precede the deltas, or end nothing; copies at other positions."""
    yield from _same_end(mutator, 100, 1000)
    while True:
        if mutator.chance(0.02):
            yield from _same_end(mutator, mutator.size(100), mutator.size(1000))
        owner = mutator.id()
        events = [_step(mutator) for _ in range(mutator.size(200))]
        at_once = mutator.pick(1, 1, 4, 50)
        for first in range(0, len(events), at_once):
            some = events[first : first + at_once]
            yield entry(some if at_once > 1 else some[0], events=len(some), response_id=owner)


def _same_end(mutator: Mutator, times: int, texts: int) -> Iterator[Entry]:
    """Yield ends of one response, each with a large copy of different texts."""
    owner = mutator.id()
    for number in range(times):
        part = {"type": "refusal", "refusal": f"{number}"}
        output = [{"type": "message", "id": f"i{number}", "content": [part] * texts}]
        yield entry({"type": "response.completed", "response": {"output": output}}, response_id=owner)


def _step(mutator: Mutator) -> dict[str, Any]:
    index = mutator.rng.randrange(4)
    reason = mutator.pick("content_filter", "max_output_tokens", "refusal", 500, "", None)
    copy = {"type": "message", "id": mutator.pick("i", "j", ""), "content": [_part(mutator)] * (index + 1)}
    response = {
        "status": mutator.pick(*_STATUSES),
        "output": [copy] * mutator.rng.randint(0, 3),
        "incomplete_details": {"reason": reason},
        "error": {"code": reason},
    }
    step: dict[str, Any] = mutator.pick(
        mutator.delta(index, sequence_number=mutator.rng.randrange(9)),
        mutator.done(index),
        mutator.done(index, refusal=""),
        {"type": f"response.{mutator.pick(*_ENDS)}", "response": response},
        {"type": "error", "code": reason, "error": {"type": reason}},
        {"error": {"message": "overloaded"}},
        {"type": "response.output_item.done", "output_index": index, "item": copy},
        {
            "type": "response.content_part.done",
            "output_index": 0,
            "content_index": index,
            "part": _part(mutator),
        },
    )
    return step


def _part(mutator: Mutator) -> dict[str, str]:
    return {"type": "refusal", "refusal": mutator.text(2)}
