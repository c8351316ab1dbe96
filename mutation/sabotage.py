"""The sabotages in `sabotages.toml`: fixed ways to break the code, which must turn the tests red."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from mutation.change import Change

FILE = Path(__file__).with_name("sabotages.toml")


class SabotageError(Exception):
    """An error: a sabotage does not match the tree, so that `sabotages.toml` must be changed."""


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A fixed way to break the code."""

    name: str
    file: str
    find: str
    """Text that the file contains exactly once."""
    replace: str
    breaks: str
    """The damage that a user would see."""
    tests: tuple[str, ...]
    """Tests to run first; at least one of them should fail."""

    def change(self, root: Path) -> Change:
        """Return the sabotage as a change of the tree.

        Raises:
            SabotageError: the file cannot be read, or does not contain the text exactly once.
        """
        try:
            source = (root / self.file).read_text("utf-8")
        except OSError as error:
            raise SabotageError(f"sabotage {self.name!r}: {self.file} cannot be read: {error}") from error
        count = source.count(self.find)
        if count != 1:
            raise SabotageError(
                f"sabotage {self.name!r}: its text occurs {count} times in {self.file}, not once"
            )
        start = source.index(self.find)
        return Change(self.file, start, start + len(self.find), self.replace, self.name)


def read_sabotages(path: Path = FILE) -> list[Sabotage]:
    """Read the file."""
    tables = tomllib.loads(path.read_text("utf-8"))["sabotage"]
    return [Sabotage(**{**table, "tests": tuple(table["tests"])}) for table in tables]
