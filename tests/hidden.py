"""Invisible characters, for tests of printed and logged output."""

from __future__ import annotations

import unicodedata

HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

HIDDEN = "".join(
    map(
        chr,
        (
            *range(0x20),
            *range(0x7F, 0xA0),
            *(0xAD, 0x061C, 0x034F, 0x115F, 0x3164, 0xFE0F, 0xFEFF, 0xFFF9),
            *range(0x200B, 0x2010),
            *range(0x2028, 0x202F),
            *range(0x2060, 0x2070),
            *range(0xE0001, 0xE0080),
            0xE0100,
        ),
    )
)
"""Control, bidirectional, zero-width and tag characters, and some others without a glyph; all valid UTF-8."""

NAME = f"\x1b]0;taken\x07\x1b[2J{HIDDEN}"
"""A hostile id: printed as it is, it would clear the screen and change the terminal's title."""


def hidden_in(written: str, *, but: str = "") -> set[str]:
    """Return the invisible characters of `written`, except those in `but`."""
    return {
        each
        for each in written
        if each not in but and (unicodedata.category(each) in HIDDEN_CATEGORIES or each in HIDDEN)
    }
