"""Reduce a receiver's answer to one line that is safe to log: without secrets and without model text.

Some receivers repeat the request, and some include its URL, which for a Slack webhook is a password.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ANSWER = 200
"""Maximum length of a line, in characters."""
_IN_A_ROW = 16
"""Consecutive letters and digits of a text that count as a quotation; shorter matches are chance."""
_SHORTEST_QUOTE = 6
"""Minimum letters and digits of a text that is searched for: answers contain words like "sorry" anyway."""
_LOOKED_THROUGH = 64 * 1024
"""Characters of a text in which quotations are searched; an answer repeats a text from its beginning."""
_SHORTEST_SECRET = 4
"""Minimum length of a secret; shorter values, such as the path `/`, would blank parts of every line."""


def line(answer: bytes | str, secrets: Iterable[str] = (), texts: Iterable[str] = ()) -> str:
    """Return the beginning of an answer as one line.

    Args:
        answer: the answer; bytes that are not UTF-8 are replaced.
        secrets: values that must not appear; an ellipsis replaces them.
        texts: texts that must not be quoted; an answer that quotes one is omitted.
    """
    whole = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            whole = whole.replace(secret, "…")
    if any(_quotes(whole[: 2 * MAX_ANSWER], text) for text in texts):
        return "(the answer repeats the text, and is left out)"
    one_line = " ".join("".join(each if each.isprintable() else " " for each in whole).split())
    return one_line if len(one_line) <= MAX_ANSWER else one_line[: MAX_ANSWER - 1] + "…"


def _quotes(answer: str, text: str) -> bool:
    written = _letters(answer)
    if len(written) < _SHORTEST_QUOTE:  # most receivers answer with little or nothing
        return False
    beginning = text[:_LOOKED_THROUGH]
    for searched in (_letters(beginning), _letters(json.dumps(beginning))):  # plain, and with \\u escapes
        length = min(_IN_A_ROW, len(searched))
        if length >= _SHORTEST_QUOTE and any(
            written[at : at + length] in searched for at in range(len(written) - length + 1)
        ):
            return True
    return False


def _letters(text: str) -> str:
    """Return the letters and digits of a text, which quoting and escaping do not change."""
    return "".join(filter(str.isalnum, text))
