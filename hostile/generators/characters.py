"""Characters that control a terminal or are invisible, and bytes that are not text."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from hostile.entry import ANY, REFUSED, USED, Entry, entry, raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Mutator

HIDDEN = "\x1b[2J\x1b]0;taken\x07\x9b\x7f\x00\r\n\u202e\u2066\u200b\u2060\ufeff\u00ad\U000e0041\u2028"
"""Control, bidirectional, zero-width and tag characters."""


def control_characters(mutator: Mutator) -> Iterator[Entry]:
    """Send control, bidirectional, zero-width and tag characters in ids, names, models and types."""
    while True:
        name = mutator.id() + "".join(mutator.rng.choices(HIDDEN, k=20))
        context = dict.fromkeys(("tenant", "model", "provider", "reference"), name)
        yield entry(
            [mutator.delta(item_id=name), mutator.done(item_id=name)], response_id=name, context=context
        )
        yield entry({"type": f"h.{name}"}, ends=USED, response_id=name)
        details = {"reason": name, "explanation": name, "category": name}
        event = {"type": "response.incomplete", "response": {"incomplete_details": details, "model": name}}
        yield entry(event, response_id=mutator.id() + HIDDEN)
        yield entry({"type": "response.refusal.delta", name: name, "delta": {name: name}}, ends=REFUSED)
        yield Entry({raw(name): raw(name), raw(HIDDEN): b""}, 1, REFUSED)


_GOOD = '{"type":"response.refusal.delta","output_index":0,"content_index":0,"delta":"no"}'


def bad_bytes(mutator: Mutator) -> Iterator[Entry]:
    """Send bytes that are not UTF-8, lone surrogates, byte order marks, incomplete and compressed JSON."""
    yield _halves(mutator, 10_000)
    good = _GOOD.encode()
    while True:
        if mutator.chance(0.01):
            yield _halves(mutator, mutator.size(10_000))
        at = mutator.rng.randrange(1, len(good))
        bad = mutator.pick(
            good[:at],
            good[:at] + b"\xff" + good[at:],
            good[:at] + b"\0" + good[at:],
            _GOOD.encode("utf-16"),
            _GOOD.encode("utf-32-be"),
            gzip.compress(good, mtime=0),
            b"\x89BIN\x0d\x0a\x1a\x0a" + good[:at],
            b"\xef\xbb\xbf" * 2 + good,
            b"",
            mutator.rng.randbytes(mutator.size(10_000)),
        )
        field = mutator.pick("event", "__data__")
        yield entry(bad, field=field, response_id=mutator.id(), ends=REFUSED)
        half = mutator.delta(delta="x") | {"delta": mutator.pick("\ud83d", "\ude00\ud83d", "a\udfff")}
        yield entry(half, field=field, response_id=mutator.id(), ends=USED)
        yield entry(b"\xef\xbb\xbf" + good, field=field, response_id=mutator.id(), ends=ANY)
        yield entry(good, response_id=b"\xff\xfe", ends=REFUSED)


def _halves(mutator: Mutator, count: int) -> Entry:
    """Return an array of deltas with a lone surrogate each, which no fast parser accepts."""
    half = mutator.delta(delta="x") | {"delta": "\ud83d"}
    return entry([half] * count, response_id=mutator.id(), ends=USED)
