"""Find the line of each key and element in a TOML document, which `tomllib` does not report.

The text must already be valid TOML, as `tomllib` has accepted it, so the first characters of a token
determine its type. This module checks nothing. The grammar is https://toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KeyPath = tuple[str | int, ...]
"""Keys, and array indexes from 0: `("routes", 0, "match", "severity")`."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_INDENT = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_STRING = re.compile(r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*\'''', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def lines_of(toml: str) -> Mapping[KeyPath, int]:
    """Return the line, from 1, on which each key, table and element begins; the document has line 1."""
    return _Walk(toml).lines


def dotted(path: KeyPath) -> str:
    """Return a path in the notation that a person writes: `routes[0].match.severity`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_written(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def _written(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'


class _Walk:
    """A single pass over a document, recording lines."""

    def __init__(self, toml: str) -> None:
        self._text = toml
        self._at = 0
        self._seen = 0
        self._line = 1
        self._tables: dict[KeyPath, int] = {}
        self.lines: dict[KeyPath, int] = {(): 1}
        self._document()

    def _document(self) -> None:
        table: KeyPath = ()
        self._take(_BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._take(_BLANK)

    def _header(self) -> KeyPath:
        """Read `[key]` or `[[key]]`, and return the path of the table that it opens."""
        line = self._here()
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        path: KeyPath = ()
        keys = self._keys()
        self._at += brackets
        for key in keys[:-1]:
            path = self._latest((*path, key))
            self.lines.setdefault(path, line)
        path = (*path, keys[-1])
        if brackets == 1:
            self.lines[path] = line
            return path
        self.lines.setdefault(path, line)
        self._tables[path] = self._tables.get(path, 0) + 1
        self.lines[self._latest(path)] = line
        return self._latest(path)

    def _latest(self, path: KeyPath) -> KeyPath:
        """Return the path of the latest element if `path` is an array of tables, else `path`."""
        return (*path, self._tables[path] - 1) if path in self._tables else path

    def _pair(self, table: KeyPath) -> None:
        """Read `key = value`."""
        line = self._here()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._at += 1
        self._take(_INDENT)
        self._value(path)

    def _keys(self) -> list[str]:
        """Read a dotted key and the blanks behind it, and return its steps."""
        keys: list[str] = []
        while True:
            self._take(_INDENT)
            written = self._take(_KEY)
            keys.append(next(iter(tomllib.loads(f"{written} = 0"))))
            self._take(_INDENT)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._take(_STRING if first in "\"'" else _SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while not self._closed("]"):
            self.lines[*path, index] = self._here()
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while not self._closed("}"):
            self._pair(path)

    def _closed(self, bracket: str) -> bool:
        """Return whether the array or table ends here, and skip its bracket, or a comma between elements."""
        self._take(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._take(_BLANK)
        if not self._text.startswith(bracket, self._at):
            return False
        self._at += 1
        return True

    def _take(self, token: re.Pattern[str]) -> str:
        match = token.match(self._text, self._at)
        if match is None:  # pragma: no cover - a valid document has a token here
            raise AssertionError
        self._at = match.end()
        return match[0]

    def _here(self) -> int:
        """Return the line of the current position."""
        self._line += self._text.count("\n", self._seen, self._at)
        self._seen = self._at
        return self._line
