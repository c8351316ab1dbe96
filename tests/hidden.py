"""Characters that a reader cannot see, for tests of what is printed and logged."""

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
"""Control, bidirectional, zero-width and tag characters, and some that are not drawn; all valid UTF-8."""

NAME = f"\x1b]0;taken\x07\x1b[2J{HIDDEN}"
"""An id as a stranger gives it: it would clear the screen and retitle the terminal."""


def hidden_in(written: str, *, but: str = "") -> set[str]:
    """Return the characters of `written` that cannot be seen, those in `but` left out."""
    return {
        each
        for each in written
        if each not in but and (unicodedata.category(each) in HIDDEN_CATEGORIES or each in HIDDEN)
    }
