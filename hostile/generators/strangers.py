"""Events that refer to honest responses without belonging to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostile.entry import ANY, USED, Entry, entry, raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Mutator
    from hostile.victims import Victims


_KINDS = (("refusal", "content_index", "refusal"), ("reasoning_text", "content_index", "text"))
_SUMMARY = ("reasoning_summary_text", "summary_index", "text")


def _all_places(item_id: str) -> list[dict[str, Any]]:
    """Return closing events of texts at all places where the response of this name may have one."""
    return [
        {
            "type": f"response.{kind}.done",
            "item_id": item_id,
            "output_index": output_index,
            index: number,
            text: "stranger",
        }
        for kind, index, text in (*_KINDS, _SUMMARY)
        for output_index in range(4)
        for number in range(2)
    ]


def strangers(mutator: Mutator, victims: Victims) -> Iterator[Entry]:
    """Send items with an honest response's id, its items under another id, and repeats of its entries."""
    while True:
        victim = victims.pick(mutator.rng)
        if victim is None:
            yield entry({"type": "h.nobody-there"}, ends=USED)
            continue
        for each in _near(mutator, victim.name):
            yield each._replace(near=victim.name)
        over = victims.over(mutator.rng)
        if over is not None:
            for again in mutator.rng.sample(over.entries, mutator.rng.randint(1, min(len(over.entries), 5))):
                fields = {raw(field): raw(value) for field, value in again.fields.items()}
                yield Entry(fields, again.events, USED, near=over.name)


def _near(mutator: Mutator, name: str) -> Iterator[Entry]:
    """Yield entries that contain an honest response's name, but do not belong to it."""
    item, other = f"item_{name}_0", mutator.id()
    yield entry(mutator.delta(item_id=name), ends=USED)
    yield entry(mutator.rng.sample(_all_places(name), 6), ends=USED)
    if mutator.chance(0.5):
        message = {"type": "message", "id": name, "content": [{"type": "refusal", "refusal": "stranger"}]}
        yield entry({"type": "response.output_item.done", "output_index": 0, "item": message}, ends=ANY)
    yield entry([mutator.delta(item_id=item), mutator.done(item_id=item)], response_id=other, ends=USED)
    yield entry({"type": "response.completed", "response": {"id": name}}, response_id=other, ends=USED)
