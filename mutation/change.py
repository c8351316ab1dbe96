"""A change of a file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """A replacement of the characters from `start` to `end` of a file."""

    file: str
    """Path of the file in the tree."""
    start: int
    end: int
    replacement: str
    rule: str
    """Name of the rule or the sabotage that made the change."""

    def apply(self, source: str) -> str:
        """Return the changed source."""
        return source[: self.start] + self.replacement + source[self.end :]

    def line(self, source: str) -> int:
        """Return the line on which the change begins, counted from 1."""
        return source.count("\n", 0, self.start) + 1

    def place(self, source: str) -> str:
        """Return file and line, in the form that editors read."""
        return f"{self.file}:{self.line(source)}"

    def lines(self, source: str) -> tuple[str, str]:
        """Return the changed lines before and after the change, without indentation."""
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
