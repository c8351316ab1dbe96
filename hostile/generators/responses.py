"""Responses that begin and never end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostile.entry import USED, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator


def open_responses(mutator: Mutator) -> Iterator[Entry]:
    """Send thousands of new responses per second, each with one delta."""
    while True:
        kind = (
            "refusal" if mutator.chance(0.02) else "reasoning_text"
        )  # few refusals, since alerts are not the aim
        where = {"output_index": 0, "content_index": 0, "delta": "n"}
        yield entry({"type": f"response.{kind}.delta", **where}, response_id=mutator.id(), ends=USED)
