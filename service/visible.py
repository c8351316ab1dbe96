"""Make untrusted text safe to print: replace invisible characters by escapes.

Control characters can hide or move what a terminal shows, or change its title. Bidirectional characters can
make a text look like another one. Zero-width and tag characters can make two ids look alike. So all untrusted
text passes one of these functions on its way to a terminal or a log.
"""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = re.compile(
    "["
    # The categories Cc, Cf, Cs, Zl and Zp.
    "\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    # Other characters that Unicode lists as "default ignorable": fillers, variation selectors, tags.
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff"
    "]"
)


def visible(text: str, *, keep: str = "") -> str:
    r"""Return `text` with invisible characters replaced by escapes such as `\x1b` and `\u202e`.

    Args:
        text: an untrusted text.
        keep: characters that are not replaced, such as line feeds in a text of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def shortened(text: str, most: int) -> str:
    """Return `text`, cut to at most `most` characters with a final `…` if it is longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def visible_json(json: str) -> str:
    r"""Return the same JSON value, with invisible characters replaced by `\u…` escapes."""
    if json.isascii() and json.isprintable():
        return json
    return _HIDDEN.sub(lambda found: _json_escape(found[0]), json)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
