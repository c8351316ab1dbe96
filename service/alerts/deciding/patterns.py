r"""Regular expressions on texts that a model wrote: RE2's, which take time linear in the text, and bounded.

The syntax is RE2's (https://github.com/google/re2/wiki/Syntax): no look-around, no back-references; `\b` and
`\w` know ASCII letters only; `(?i)` ignores case. No more than the first `MOST_TEXT` characters of a text
are ever looked at.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import re2

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_PATTERN = 2000
"""Characters of a pattern."""

MOST_TEXT = 65_536
"""Characters of a text that are looked at. What stands behind them cannot be judged, so it does not leave."""

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # it would write to stderr by itself
_BEYOND_RE2 = "invalid perl operator"


class Span(NamedTuple):
    """Where something stands in a text: from the character `start` up to, and without, `end`."""

    start: int
    end: int


class Pattern:
    """A compiled regular expression.

    Raises:
        ValueError: it cannot be compiled, is too long, or takes every text; the message is a phrase that says
            what would be allowed.
    """

    __slots__ = ("_compiled", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        if len(source) > MOST_PATTERN:
            raise ValueError(f"a pattern of {MOST_PATTERN} characters at most")
        try:
            self._compiled = re2.compile(source, _OPTIONS)
        except re2.error as error:
            raise ValueError(_explained(error)) from None
        except UnicodeEncodeError:
            raise ValueError("a pattern without halves of surrogate pairs") from None
        if self._compiled.search("") and self._compiled.search(" x "):
            raise ValueError("a pattern that does not match the empty text: this one takes every text")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Pattern({self.source!r})"

    def find(self, text: str) -> Span | None:
        """The first match."""
        match = self._compiled.search(_looked_at(text))
        return None if match is None else Span(*match.span())

    def spans(self, text: str) -> Iterator[Span]:
        """All matches, as far as they do not overlap, from left to right."""
        for match in self._compiled.finditer(_looked_at(text)):
            yield Span(*match.span())


@lru_cache(maxsize=8)  # one pattern after the other looks at a text
def _looked_at(text: str) -> str:
    """Return what is looked at of a text, with a question mark for half a surrogate pair: RE2 reads UTF-8."""
    return text[:MOST_TEXT].encode("utf-8", "replace").decode()


def _explained(error: re2.error) -> str:
    said = error.args[0]
    message = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    hint = " (RE2 has no look-around and no back-references)" if message.startswith(_BEYOND_RE2) else ""
    return f"a regular expression as RE2 takes it: {message}{hint}"
