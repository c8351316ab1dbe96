"""What there is to say about `alerts.toml`, and where: file, line and key."""

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
    """One thing about the file."""

    line: int
    """From 1; 0: of the file as a whole."""
    key: str
    """Such as `routes[0].match.severity`; empty where it is about none."""
    says: str

    def told(self, file: str) -> str:
        """As one line: `alerts.toml:12: routes[0].to: …`."""
        where = f"{file}:{self.line}" if self.line else file
        return ": ".join(part for part in (where, self.key, self.says) if part)


class ConfigError(ValueError):
    """The operator's file cannot be used: one line for each thing that is wrong, with the remedy."""

    def __init__(self, file: str, findings: Iterable[Finding]) -> None:
        self.file = file
        self.findings = tuple(sorted(findings))
        super().__init__("\n".join(finding.told(file) for finding in self.findings))


class Places:
    """Makes findings of paths into the text of a file that is TOML."""

    def __init__(self, text: str) -> None:
        self._lines = lines_of(text)

    def finding(self, path: KeyPath, says: str) -> Finding:
        """About a key; on the line of the innermost table around it if it is not there."""
        if path not in self._lines and isinstance(path[-1], int):
            path = path[:-1]  # one value where there could be several
        there = path
        while there not in self._lines:
            there = there[:-1]
        return Finding(self._lines[there], dotted(path), says)


def perhaps(wrong: str, right: Iterable[str]) -> str:
    """Which of the right words somebody may have meant, as the end of a sentence; empty if none."""
    close = get_close_matches(wrong, list(right), n=1)
    return f"; did you mean {close[0]}?" if close else ""
