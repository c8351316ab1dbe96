"""Findings about `alerts.toml`, each with file, line and key."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from service.alerts.deciding.locations import dotted, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.alerts.deciding.locations import KeyPath


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A remark about one place in the file."""

    line: int
    """Line number, from 1; 0 if the finding is about the whole file."""
    key: str
    """Dotted path, such as `routes[0].match.severity`; empty if the finding is about no key."""
    message: str

    def as_line(self, file: str) -> str:
        """Return the finding as one line: `alerts.toml:12: routes[0].to: …`."""
        where = f"{file}:{self.line}" if self.line else file
        return ": ".join(part for part in (where, self.key, self.message) if part)


class ConfigError(ValueError):
    """The operator's file cannot be used. The message has one line for each mistake, with its remedy."""

    def __init__(self, file: str, findings: Iterable[Finding]) -> None:
        self.file = file
        self.findings = tuple(sorted(findings))
        super().__init__("\n".join(finding.as_line(file) for finding in self.findings))


class SourceLocations:
    """Create findings for key paths in the text of a valid TOML file."""

    def __init__(self, text: str) -> None:
        self._lines = lines_of(text)

    def finding(self, path: KeyPath, message: str) -> Finding:
        """Return a finding about a key; a missing key gets the line of its innermost existing table."""
        if path not in self._lines and isinstance(path[-1], int):
            path = path[:-1]  # a single value, where an array is allowed too
        there = path
        while there not in self._lines:
            there = there[:-1]
        return Finding(self._lines[there], dotted(path), message)


def suggestion(wrong: str, right: Iterable[str]) -> str:
    """Return `; did you mean X?` with the closest valid word, or an empty string if none is close."""
    close = get_close_matches(wrong, list(right), n=1)
    return f"; did you mean {close[0]}?" if close else ""
