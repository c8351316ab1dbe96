r"""RE2 regular expressions with limits, for texts that a model wrote; time is linear in the text.

The syntax is RE2's (https://github.com/google/re2/wiki/Syntax): no look-around, no back-references; `\b` and
`\w` know ASCII letters only; `(?i)` ignores case. Only the first `MAX_TEXT` characters of a text are
searched.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import re2

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

MAX_PATTERN = 2000
"""Maximum length of a pattern, in characters."""

MAX_TEXT = 65_536
"""Number of characters of a text that are searched. `privacy.MAX_SENT` is smaller, so no text that was not
searched is sent."""

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # RE2 would write to stderr
_BEYOND_RE2 = "invalid perl operator"


class Span(NamedTuple):
    """A range of characters of a text, from `start` up to but excluding `end`."""

    start: int
    end: int


class Pattern:
    """A compiled regular expression.

    Raises:
        ValueError: the source is too long, does not compile, or matches every text. The message is a phrase
            describes an allowed pattern.
    """

    __slots__ = ("_compiled", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        if len(source) > MAX_PATTERN:
            raise ValueError(f"a pattern of {MAX_PATTERN} characters at most")
        try:
            self._compiled = re2.compile(source, _OPTIONS)
        except re2.error as error:
            raise ValueError(_explained(error)) from None
        except UnicodeEncodeError:
            raise ValueError("a pattern without halves of surrogate pairs") from None
        if self._compiled.search("") and self._compiled.search(" x "):
            raise ValueError("a pattern that does not match the empty text: this one matches every text")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Pattern({self.source!r})"

    def find(self, text: str) -> Span | None:
        """Return the first match; None if there is none."""
        match = self._compiled.search(_searchable(text))
        return None if match is None else Span(*match.span())

    def spans(self, text: str) -> Iterator[Span]:
        """Yield all non-overlapping matches from left to right."""
        for match in self._compiled.finditer(_searchable(text)):
            yield Span(*match.span())


class PatternSet:
    """Patterns that search a text together, much faster than one after the other.

    RE2 first looks for the words that the patterns need, all at once, and then only for the patterns whose
    words it has found.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._patterns = tuple(patterns)
        self._filter = _filter_of(self._patterns)

    def found(self, text: str) -> Collection[int]:
        """Return the indexes of the patterns that match somewhere in a text."""
        if self._filter is None:
            return [index for index, pattern in enumerate(self._patterns) if pattern.find(text)]
        return self._filter.Match(_searched(text)) or ()


def _filter_of(patterns: Iterable[Pattern]) -> re2.Filter | None:
    """Return RE2's filter for patterns; None if there are none, or too many for its memory."""
    together = re2.Filter()
    added = [together.Add(pattern.source, _OPTIONS) for pattern in patterns]
    try:
        if added:
            together.Compile()
    except re2.error:
        return None
    return together if added else None


def _searched(text: str) -> bytes:
    """Return the part of a text that is searched, with `?` for unpaired surrogates, since RE2 reads UTF-8."""
    return text[:MAX_TEXT].encode("utf-8", "replace")


@lru_cache(maxsize=8)  # several patterns search the same text in turn
def _searchable(text: str) -> str:
    return _searched(text).decode()


def _explained(error: re2.error) -> str:
    reason = error.args[0]
    message = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    hint = " (RE2 has no look-around and no back-references)" if message.startswith(_BEYOND_RE2) else ""
    return f"a regular expression in RE2 syntax: {message}{hint}"
