"""The mutants in `equivalent.toml`, which change no behaviour, each for a given reason."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mutation.change import Change

FILE = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True, slots=True)
class Equivalent:
    """A mutant that no test can notice, as a line before and after the change."""

    file: str
    before: str
    after: str
    reason: str


class Equivalents:
    """The known equivalent mutants."""

    def __init__(self, known: list[Equivalent]) -> None:
        self.known = known
        self._lines = {(each.file, each.before, each.after) for each in known}

    @classmethod
    def read(cls, path: Path = FILE) -> Equivalents:
        """Read the file."""
        tables = tomllib.loads(path.read_text("utf-8")).get("equivalent", [])
        return cls([Equivalent(**table) for table in tables])

    def has(self, change: Change, source: str) -> bool:
        """Return whether a change is one of them."""
        return (change.file, *change.lines(source)) in self._lines
