"""A hostile entry, and the dice that generators make entries with."""

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
"""How an entry may end: in a dead letter, in a count, in an effect (state, a text, an alert)."""
REFUSED = frozenset({LETTER})
USED = frozenset({COUNT, EFFECT})

_OWNER = "h."
"""How each id begins that a generator invents."""

_WORDS = ("I", " can't", " help", " with", " that", ".", " Größe", " 東京", " 🙂")


class Entry(NamedTuple):
    """An entry of the input that somebody sends who is not honest, or not well."""

    fields: Mapping[bytes, bytes]
    events: int
    """Events in it; 1 where nobody can tell."""
    ends: frozenset[str] = ANY
    """How it may end; it must end in one of these ways."""
    id: str = "*"
    near: str | None = None
    """The name of an honest response in whose partition it has to be; None for any."""

    @property
    def size(self) -> int:
        """Bytes of its names and values."""
        return sum(len(name) + len(value) for name, value in self.fields.items())


def entry(
    body: bytes | str | Mapping[str, Any] | Sequence[Any],
    *,
    events: int | None = None,
    ends: frozenset[str] = ANY,
    field: str = "event",
    response_id: str | bytes | None = None,
    said: Mapping[str, str] = MappingProxyType({}),
) -> Entry:
    """Return an entry with this body in `field`, and with what a producer says beside it."""
    if events is None:
        events = len(body) if isinstance(body, list) else 1
    fields = {field.encode(): raw(body), **{name.encode(): raw(value) for name, value in said.items()}}
    if response_id is not None:
        fields[b"response_id"] = raw(response_id)
    return Entry(fields, events, ends)


def raw(value: Any) -> bytes:
    """Return bytes as they are, a string in UTF-8, anything else as JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()


class Mutator:
    """The dice of one generator: sizes, repetition, fields, and events that look honest.

    Args:
        seed: of the run.
        name: of the generator; every id that it invents says it.
    """

    def __init__(self, seed: str, name: str) -> None:
        self.rng = random.Random(f"{seed}/hostile/{name}")
        self._name = name
        self._seed = seed
        self._ids = 0

    def id(self) -> str:
        """Return a new id, of a response or of an item."""
        self._ids += 1
        return f"{_OWNER}{self._name}.{self._seed}-{self._ids}"

    def size(self, most: int) -> int:
        """Return a size up to `most`: most sizes are small, some are the largest."""
        if self.rng.random() < 0.2:  # noqa: PLR2004 - one of five
            return most
        return max(1, round(math.pow(most, self.rng.uniform(0.4, 1.0))))

    def chance(self, probability: float) -> bool:
        """Return true as often as this."""
        return self.rng.random() < probability

    def pick(self, *choices: Any) -> Any:
        """Return one of these."""
        return self.rng.choice(choices)

    def text(self, words: int = 4) -> str:
        """Return words as an honest model says them."""
        return "".join(self.rng.choices(_WORDS, k=words))

    def delta(self, index: int = 0, **more: Any) -> dict[str, Any]:
        """Return an event that looks honest."""
        where = {"output_index": 0, "content_index": index}
        return {"type": "response.refusal.delta", **where, "delta": self.text(), **more}

    def done(self, index: int = 0, **more: Any) -> dict[str, Any]:
        """Return an event that closes a refusal, as an honest model sends it."""
        where = {"output_index": 0, "content_index": index}
        return {"type": "response.refusal.done", **where, "refusal": self.text(), **more}

    def beside(self) -> dict[str, str]:
        """Return some of the fields that an honest producer says beside its events."""
        said = {
            "tenant": "acme",
            "model": "gpt-said",
            "provider": "openai",
            "reference": "https://r.example/1",
        }
        return {name: value for name, value in said.items() if self.chance(0.5)}


def generator_of(owner: str | None) -> str | None:
    """Return the name of the generator that invented this id; None if none did."""
    if owner is None or not owner.startswith(_OWNER):
        return None
    return owner[len(_OWNER) :].partition(".")[0]
