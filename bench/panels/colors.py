"""The colors of the competitors."""

from __future__ import annotations

from bench.competitors import FASTSTREAM_BATCH

OURS, BARE = "#1f6feb", "#8b949e"
REACHED, MISSED = "#2da44e", "#cf222e"
INK = "#24292f"
_OTHERS = "#c9b37e"
_NEXT_TO_OTHERS = "#c4623f"


def color_of(who: str) -> str:
    """Return the color of a competitor's bars."""
    if who.startswith("ours"):
        return OURS
    return BARE if who.startswith("bare") else _OTHERS


def line_color(who: str) -> str:
    """Return the color of a competitor's lines, which stand next to those of all others."""
    return _NEXT_TO_OTHERS if who == FASTSTREAM_BATCH.name else color_of(who)
