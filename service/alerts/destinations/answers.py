"""What a receiver answered, as one line that may be logged: no secret in it, and nothing of a model's text.

Some receivers repeat what they were sent, and some say the address they were asked at, which for a Slack
webhook is a password.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

AT_MOST = 200
"""Characters of a line."""
_IN_A_ROW = 16
"""So many characters of a text in a row are a quotation; fewer are words that anybody uses."""
_SHORTEST_QUOTE = 6
"""Letters of a text that is quoted whole; "no" and "sorry" are in answers of their own."""
_LOOKED_THROUGH = 64 * 1024
"""Characters of a text that are searched for what an answer repeats: its beginning repeats a beginning."""
_SHORTEST_SECRET = 4
"""What is shorter, like the path `/`, is no secret, and would leave holes in every line."""


def line(said: bytes | str, secrets: Iterable[str] = (), texts: Iterable[str] = ()) -> str:
    """The beginning of an answer.

    Args:
        said: the answer; bytes that are no UTF-8 are replaced.
        secrets: what must not be in it; it is replaced by an ellipsis.
        texts: what must not be quoted; an answer that does is left out.
    """
    whole = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            whole = whole.replace(secret, "…")
    if any(_quotes(whole[: 2 * AT_MOST], text) for text in texts):
        return "(the answer repeats the text, and is left out)"
    one_line = " ".join("".join(each if each.isprintable() else " " for each in whole).split())
    return one_line if len(one_line) <= AT_MOST else one_line[: AT_MOST - 1] + "…"


def _quotes(answer: str, text: str) -> bool:
    written = _letters(answer)
    if len(written) < _SHORTEST_QUOTE:  # as of most receivers, which say nothing
        return False
    beginning = text[:_LOOKED_THROUGH]
    for searched in (_letters(beginning), _letters(json.dumps(beginning))):  # as it is, and with \\u escapes
        length = min(_IN_A_ROW, len(searched))
        if length >= _SHORTEST_QUOTE and any(
            written[at : at + length] in searched for at in range(len(written) - length + 1)
        ):
            return True
    return False


def _letters(text: str) -> str:
    """Only what survives quoting and escaping."""
    return "".join(filter(str.isalnum, text))
