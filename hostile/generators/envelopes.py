"""FastStream envelopes that are expensive to open."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from hostile.entry import REFUSED, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator

_MAGIC = b"\x89BIN\x0d\x0a\x1a\x0a"


def envelope(table: bytes, body: bytes, *, count: int) -> bytes:
    """Return an envelope with this table of headers, and this count of them, right or wrong."""
    start = len(_MAGIC) + 2 + 8
    head = struct.pack(">H", count) + table
    return _MAGIC + struct.pack(">HII", 1, start, start + len(head)) + head + body


def envelope_headers(mutator: Mutator) -> Iterator[Entry]:
    """Send thousands of empty headers before thousands of bad events."""
    yield _many_headers(5000, 2000)
    yield _many_headers(65_535, 2000)
    while True:
        headers = mutator.size(65_535)
        if mutator.chance(0.3):
            yield _lying_headers(mutator, headers)
        else:
            yield _many_headers(headers, mutator.size(2000), mutator.pick(b"1", b"[]", b'""', b"{}"))


def _many_headers(headers: int, events: int, event: bytes = b"1") -> Entry:
    body = b"[" + b",".join([event] * events) + b"]"
    data = envelope(b"\0\0\0\0" * headers, body, count=headers)
    return entry(data, events=events, ends=REFUSED, field="__data__")


def _lying_headers(mutator: Mutator, headers: int) -> Entry:
    """Return headers with wrong lengths and counts, before a bad event."""
    name = mutator.pick("é", "x", "東").encode() * mutator.size(3)
    table = (struct.pack(">H", len(name) - mutator.pick(0, 1)) + name + b"\0\0") * min(headers, 20_000)
    body = json.dumps({"type": 5}).encode()
    return entry(envelope(table, body, count=headers), ends=REFUSED, field="__data__")
