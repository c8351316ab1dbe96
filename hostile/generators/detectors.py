"""Texts that make the detectors of numbers and addresses slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostile.entry import USED, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator

_LONGEST = 65_000
_PIECES = ("3 ", "4-", "a@a", "a@a.a ", "+4 ", "00-", "0", "(1) ", "٣ ", "=Zm9v", "eyJ.", "5\u2013", ".")


def card_numbers(mutator: Mutator) -> Iterator[Entry]:
    """Send texts and reasons of endless digits, addresses and dashes."""
    piece, length = "3 ", _LONGEST
    while True:
        text = (piece * length)[:length]
        owner = mutator.id()
        yield entry(
            mutator.done(refusal=text), response_id=owner, ends=USED, context={"reference": text[:512]}
        )
        details = {"reason": text[:256], "explanation": text[:4096], "category": text[:256]}
        yield entry(
            {"type": "response.incomplete", "response": {"incomplete_details": details}},
            response_id=owner,
            ends=USED,
        )
        yield entry(
            {"type": "response.failed", "response": {"error": {"code": "content_filter", "message": text}}},
            response_id=mutator.id(),
            ends=USED,
        )
        piece = "".join(mutator.rng.choices(_PIECES, k=mutator.rng.randint(1, 4)))
        length = mutator.size(_LONGEST)
