"""Responses as entries of the input: interleaved, packed, and ready to be sent.

Entries go to the server as bytes that were made before: what is measured then is the server and its readers,
not how fast this program can write commands.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from bench.generator import Author, Response, responses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.generator import PartName, Shape

_CHUNK_ENTRIES = 500


class Entry(NamedTuple):
    """One entry of the input."""

    response_id: str
    body: str
    """An event's JSON, or an array of them."""
    events: int
    opens: tuple[PartName, ...]
    """Refusals of which it holds the first delta."""
    closes: tuple[PartName, ...]
    """Texts that it closes."""


@dataclass(slots=True)
class Expected:
    """What must come out."""

    texts: dict[PartName, str] = field(default_factory=dict)
    """Of texts that end."""
    refusals: set[PartName] = field(default_factory=set)
    """Of which a moderator must hear as soon as they begin."""

    def add(self, response: Response) -> None:
        """Expect what comes of a response."""
        self.texts.update((name, response.texts[name]) for name in response.closing.values())
        self.refusals.update(response.opening.values())


def entries(seed: str, shape: Shape, expected: Expected) -> Iterator[Entry]:
    """All entries, in the order in which they are published.

    So many responses are open at once, and each round every one of them gives its next entry, in an order
    drawn anew: nearly the hardest order for a worker that reads many at once. `expected` grows meanwhile.
    """
    chance = random.Random(f"{seed}/order")
    author = Author(seed, shape)
    places = [_place(author, shape, chance, expected) for _ in range(shape.open_responses)]
    while places:
        chance.shuffle(places)
        ended = []
        for place in places:
            entry = next(place, None)
            if entry is None:
                ended.append(place)
            else:
                yield entry
        for place in ended:
            places.remove(place)


def _place(author: Author, shape: Shape, chance: random.Random, expected: Expected) -> Iterator[Entry]:
    for response in responses(author, shape, chance):
        expected.add(response)
        yield from _packed(response, shape.entry_events)


def _packed(response: Response, size: int) -> Iterator[Entry]:
    for first in range(0, len(response.events), size):
        events = response.events[first : first + size]
        numbers = range(first, first + len(events))
        body = events[0] if size == 1 else f"[{', '.join(events)}]"
        opens = tuple(response.opening[number] for number in numbers if number in response.opening)
        closes = tuple(response.closing[number] for number in numbers if number in response.closing)
        yield Entry(response.id, body, len(events), opens, closes)


@dataclass(slots=True)
class Load:
    """An input that was made before it is published."""

    shape: Shape
    expected: Expected
    chunks: list[bytes]
    """Commands for one stream, up to 500 in each."""
    entries: int
    events: int
    size: int
    """Bytes of all bodies."""


def load(seed: str, shape: Shape, stream: str) -> Load:
    """Make all of an input."""
    result = Load(shape, Expected(), [], 0, 0, 0)
    add = Xadd(stream)
    commands: list[bytes] = []
    for entry in entries(seed, shape, result.expected):
        commands.append(add(entry))
        result.entries += 1
        result.events += entry.events
        result.size += len(entry.body)
        if len(commands) == _CHUNK_ENTRIES:
            result.chunks.append(b"".join(commands))
            commands.clear()
    if commands:
        result.chunks.append(b"".join(commands))
    return result


class Xadd:
    """Writes the command that adds an entry, in Redis's protocol (RESP)."""

    def __init__(self, stream: str) -> None:
        words = [b"XADD", stream.encode(), b"*", b"event"]
        self._before = b"*9\r\n" + b"".join(map(_bulk, words))
        self._after = b"".join(map(_bulk, (b"tenant", b"acme")))

    def __call__(self, entry: Entry) -> bytes:
        """The command for one entry, with the fields that a producer sets."""
        body, response_id = entry.body.encode(), entry.response_id.encode()
        return b"%b%b%b%b%b" % (
            self._before,
            _bulk(body),
            b"$11\r\nresponse_id\r\n",
            _bulk(response_id),
            self._after,
        )


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)
