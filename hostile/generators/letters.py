"""Entries that could cause many large dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostile.entry import REFUSED, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator

_FIELDS = ("tenant", "model", "safety_identifier", "traceparent", "reference")


def letters_of_arrays(mutator: Mutator) -> Iterator[Entry]:
    """Send arrays of thousands of bad events with large fields, which each dead letter would repeat."""
    yield entry([1] * 2500, ends=REFUSED, context=dict.fromkeys(_FIELDS, "😀" * 4096))
    yield entry([1] * 2500, ends=REFUSED, context={"junk": "j" * 100_000})
    while True:
        bad = mutator.pick(1, "x", [], {}, {"type": "response.refusal.delta"}, {"type": 1})
        context = dict.fromkeys(_FIELDS[: mutator.rng.randint(1, 5)], mutator.pick("😀", "x", "\\") * 4096)
        junk = {f"junk{n}": "j" * mutator.size(20_000) for n in range(mutator.rng.randint(0, 5))}
        yield entry([bad] * mutator.size(2500), ends=REFUSED, context={**context, **junk})
