"""One change of one file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """Replace the characters from `start` to `end` of a file."""

    file: str
    """Its path in the tree."""
    start: int
    end: int
    replacement: str
    rule: str
    """The rule or the sabotage that made it."""

    def apply(self, source: str) -> str:
        """Return the changed source."""
        return source[: self.start] + self.replacement + source[self.end :]

    def line(self, source: str) -> int:
        """Return the line on which it begins, from 1."""
        return source.count("\n", 0, self.start) + 1

    def place(self, source: str) -> str:
        """Return its place, as editors read it."""
        return f"{self.file}:{self.line(source)}"

    def lines(self, source: str) -> tuple[str, str]:
        """Return the lines that it touches, before and after, without indentation."""
        first = source.rfind("\n", 0, self.start) + 1
        last = source.find("\n", self.end)
        end = len(source) if last < 0 else last
        before = source[first:end]
        after = source[first : self.start] + self.replacement + source[self.end : end]
        return before.strip(), after.strip()

    def diff(self, source: str) -> str:
        """Return a unified diff without its header."""
        lines = difflib.unified_diff(source.splitlines(), self.apply(source).splitlines(), lineterm="", n=1)
        return "\n".join(list(lines)[2:])
