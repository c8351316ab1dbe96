"""JSON that is far larger, deeper or odder than any event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostile.entry import ANY, REFUSED, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator

_MEGABYTE = 1_000_000


def big_arrays(mutator: Mutator) -> Iterator[Entry]:
    """Send up to 45 MB of empty arrays, deep nesting, repeated keys, numbers of a million digits."""
    yield _of(b"[]", 5 * _MEGABYTE)
    yield entry(_deep(mutator, 1000), events=1000, ends=REFUSED)
    yield _of(b"[]", 45 * _MEGABYTE)
    while True:
        size = mutator.size(10 * _MEGABYTE)
        kind = mutator.rng.randrange(5)
        if kind == 0:
            yield _of(mutator.pick(b"[]", b"{}", b'""', b"0", b"[[]]", b'{"type":""}'), size)
        elif kind == 1:
            yield entry(b"[" * min(size, _MEGABYTE), ends=REFUSED)
        elif kind == 2:  # noqa: PLR2004 - the third kind
            yield entry(_deep(mutator, mutator.size(1000)), events=1000, ends=REFUSED)
        elif kind == 3:  # noqa: PLR2004 - the fourth kind
            keys = b",".join([b'"a":1'] * (min(size, _MEGABYTE) // 6))
            yield entry(b'{"type":"response.refusal.delta",' + keys + b"}", ends=REFUSED)
        else:
            digits = b"9" * min(size, _MEGABYTE)
            yield entry(b'{"type":"h.number","sequence_number":' + digits + b"}", ends=ANY)


def _of(element: bytes, size: int) -> Entry:
    count = max(1, size // (len(element) + 1))
    ends = ANY if b"type" in element else REFUSED
    return entry(b"[" + (element + b",") * (count - 1) + element + b"]", events=count, ends=ends)


def _deep(mutator: Mutator, count: int) -> bytes:
    """Return an array of events with deeply nested values that contain a lone surrogate."""
    depth = mutator.rng.randint(100, 900)
    event = b'{"type":"response.refusal.delta","x":' + b"[" * depth + b'"\\ud800"' + b"]" * depth + b"}"
    return b"[" + b",".join([event] * count) + b"]"
