"""Responses as entries of the input: interleaved, packed, and ready to be sent.

The commands are prepared as bytes, so that the bench measures the server and its readers, and not how fast
this program writes commands.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from bench.generator import Author, Response, responses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.generator import PartName, Shape

_CHUNK_ENTRIES = 500


class Entry(NamedTuple):
    """An entry of the input."""

    response_id: str
    body: str
    """JSON of an event, or of an array of events."""
    events: int
    opens: tuple[PartName, ...]
    """Refusals with their first delta in this entry."""
    closes: tuple[PartName, ...]
    """Texts that this entry closes."""


@dataclass(slots=True)
class Expected:
    """The expected outputs."""

    texts: dict[PartName, str] = field(default_factory=dict)
    """Texts of all parts that end."""
    refusals: set[PartName] = field(default_factory=set)
    """Refusals that must raise an alert when they begin."""

    def add(self, response: Response) -> None:
        """Add the expected outputs of a response."""
        self.texts.update((name, response.texts[name]) for name in response.closing.values())
        self.refusals.update(response.opening.values())


def entries(seed: str, shape: Shape, expected: Expected) -> Iterator[Entry]:
    """Yield all entries in the order of publication, and add their expected outputs to `expected`.

    A fixed number of responses is open at once. In each round, every open response yields its next entry, in
    a new random order: almost the hardest order for a worker that reads many entries at once.
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
    """A prepared input."""

    expected: Expected = field(default_factory=Expected)
    chunks: list[bytes] = field(default_factory=list)
    """Commands for one stream, up to 500 in each chunk."""
    ends: array[int] = field(default_factory=lambda: array("Q"))
    """Number of bytes up to the end of each command, over all chunks."""
    events: int = 0
    opens: dict[PartName, int] = field(default_factory=dict)
    """Numbers of the entries with the first delta of each refusal."""
    closes: dict[PartName, int] = field(default_factory=dict)
    """Numbers of the entries that close each text."""

    @property
    def entries(self) -> int:
        """Return the number of entries."""
        return len(self.ends)


def load(seed: str, shape: Shape, stream: str) -> Load:
    """Prepare an input."""
    result = Load()
    add = Xadd(stream)
    commands: list[bytes] = []
    end = 0
    for number, entry in enumerate(entries(seed, shape, result.expected)):
        commands.append(add(entry))
        end += len(commands[-1])
        result.ends.append(end)
        result.events += entry.events
        result.opens.update(dict.fromkeys(entry.opens, number))
        result.closes.update(dict.fromkeys(entry.closes, number))
        if len(commands) == _CHUNK_ENTRIES:
            result.chunks.append(b"".join(commands))
            commands.clear()
    if commands:
        result.chunks.append(b"".join(commands))
    return result


class Xadd:
    """An encoder of the command that adds an entry, in Redis's protocol (RESP)."""

    def __init__(self, stream: str) -> None:
        words = [b"XADD", stream.encode(), b"*", b"event"]
        self._before = b"*9\r\n" + b"".join(map(_bulk, words))
        self._after = b"".join(map(_bulk, (b"tenant", b"acme")))

    def __call__(self, entry: Entry) -> bytes:
        """Return the command for an entry, with the fields that a producer sets."""
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
