"""A hostile entry, and the random choices that generators make entries with."""

from __future__ import annotations

import json
import math
import random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LETTER, COUNT, EFFECT = "letter", "count", "effect"
ANY = frozenset({LETTER, COUNT, EFFECT})
"""Possible ends of an entry: a dead letter, a count, or an effect (state, a text, an alert)."""
REFUSED = frozenset({LETTER})
USED = frozenset({COUNT, EFFECT})

_OWNER = "h."
"""Prefix of each id that a generator invents."""

_WORDS = ("I", " can't", " help", " with", " that", ".", " Größe", " 東京", " 🙂")


class Entry(NamedTuple):
    """An entry of the input from a hostile or broken producer."""

    fields: Mapping[bytes, bytes]
    events: int
    """Number of events in it; 1 if that is undefined."""
    ends: frozenset[str] = ANY
    """Allowed ends; the entry must end in one of these ways."""
    id: str = "*"
    near: str | None = None
    """Name of an honest response, so that the entry goes to its partition; None for any partition."""

    @property
    def size(self) -> int:
        """Return the total bytes of its names and values."""
        return sum(len(name) + len(value) for name, value in self.fields.items())


def entry(
    body: bytes | str | Mapping[str, Any] | Sequence[Any],
    *,
    events: int | None = None,
    ends: frozenset[str] = ANY,
    field: str = "event",
    response_id: str | bytes | None = None,
    context: Mapping[str, str] = MappingProxyType({}),
) -> Entry:
    """Return an entry with this body in `field`, and with the producer context."""
    if events is None:
        events = len(body) if isinstance(body, list) else 1
    fields = {field.encode(): raw(body), **{name.encode(): raw(value) for name, value in context.items()}}
    if response_id is not None:
        fields[b"response_id"] = raw(response_id)
    return Entry(fields, events, ends)


def raw(value: Any) -> bytes:
    """Return bytes unchanged, a string in UTF-8, and any other value as JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()


class Mutator:
    """The random choices of one generator: sizes, repetition, fields, and events that look honest.

    Args:
        seed: seed of the run.
        name: name of the generator, which is part of each id that it invents.
    """

    def __init__(self, seed: str, name: str) -> None:
        self.rng = random.Random(f"{seed}/hostile/{name}")
        self._name = name
        self._seed = seed
        self._ids = 0

    def id(self) -> str:
        """Return a new id of a response or an item."""
        self._ids += 1
        return f"{_OWNER}{self._name}.{self._seed}-{self._ids}"

    def size(self, most: int) -> int:
        """Return a size up to `most`: most sizes are small, and a fifth have the maximum."""
        if self.rng.random() < 0.2:  # noqa: PLR2004 - a fifth of all sizes
            return most
        return max(1, round(math.pow(most, self.rng.uniform(0.4, 1.0))))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.rng.random() < probability

    def pick(self, *choices: Any) -> Any:
        """Return one of the choices."""
        return self.rng.choice(choices)

    def text(self, words: int = 4) -> str:
        """Return words as an honest model sends them."""
        return "".join(self.rng.choices(_WORDS, k=words))

    def delta(self, index: int = 0, **more: Any) -> dict[str, Any]:
        """Return a delta that looks honest."""
        where = {"output_index": 0, "content_index": index}
        return {"type": "response.refusal.delta", **where, "delta": self.text(), **more}

    def done(self, index: int = 0, **more: Any) -> dict[str, Any]:
        """Return a closing event of a refusal, as an honest model sends it."""
        where = {"output_index": 0, "content_index": index}
        return {"type": "response.refusal.done", **where, "refusal": self.text(), **more}

    def context(self) -> dict[str, str]:
        """Return some context fields of an honest producer."""
        context = {
            "tenant": "acme",
            "model": "gpt-said",
            "provider": "openai",
            "reference": "https://r.example/1",
        }
        return {name: value for name, value in context.items() if self.chance(0.5)}


def generator_of(owner: str | None) -> str | None:
    """Return the name of the generator that invented this id; None if none did."""
    if owner is None or not owner.startswith(_OWNER):
        return None
    return owner[len(_OWNER) :].partition(".")[0]
