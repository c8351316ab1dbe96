"""Comparison of the outputs with the expected ones: a fast but wrong result is an error."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from faststream.redis.parser import BinaryMessageFormatV1

from bench.generator import PartName

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.entries import Expected
    from bench.ground import Ground

_PAGE = 2000
_EXAMPLES = 3
OPENED = "deltaloom.refusal.opened"


class _Found:
    """Counts of the differences, with some examples."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._examples: list[str] = []

    def note(self, what: str, name: PartName) -> None:
        self._kinds[what] += 1
        if len(self._examples) < _EXAMPLES:
            self._examples.append(f"{what}: {' '.join(map(str, name))}")

    def lines(self) -> list[str]:
        return [f"{count} {what}" for what, count in self._kinds.items()] + self._examples


def wrong(place: Ground, expected: Expected) -> list[str]:
    """Return the differences of texts and alerts with some examples; an empty list if there are none."""
    found = _Found()
    _compare_texts(place, expected, found)
    _compare_alerts(place, expected, found)
    return found.lines()


def _compare_texts(place: Ground, expected: Expected, found: _Found) -> None:
    seen: set[PartName] = set()
    for message in messages(place, place.names.assembled):
        name = name_of(message)
        if name in seen:
            found.note("doubled text", name)
        elif name not in expected.texts:
            found.note("text that nobody wrote", name)
        elif message["text"] != expected.texts[name]:
            found.note("wrong text", name)
        seen.add(name)
    for name in expected.texts.keys() - seen:
        found.note("lost text", name)


def _compare_alerts(place: Ground, expected: Expected, found: _Found) -> None:
    seen: set[PartName] = set()
    for message in messages(place, place.names.alerts):
        name = name_of(message)
        if message["type"] == OPENED:
            if name in seen or name not in expected.refusals:
                found.note("doubled or false alert", name)
            seen.add(name)
    for name in expected.refusals - seen:
        found.note("lost alert", name)


def messages(place: Ground, stream: str) -> Iterator[dict[str, Any]]:
    """Yield the messages of an output stream as plain data, in any competitor's format."""
    first = "-"
    while True:
        page: Any = place.client.xrange(stream, first, "+", _PAGE)
        for _, fields in page:
            yield message_of(fields)
        if len(page) < _PAGE:
            return
        first = f"({page[-1][0].decode()}"


def message_of(fields: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the message of an entry, in FastStream's envelope or without."""
    body, _ = BinaryMessageFormatV1.parse(fields[b"__data__"])
    message: dict[str, Any] = json.loads(body)
    return message


def name_of(message: dict[str, Any]) -> PartName:
    """Return the identity of a message's text."""
    return PartName(
        message["response_id"], message["kind"], message["output_index"], message["content_index"]
    )
