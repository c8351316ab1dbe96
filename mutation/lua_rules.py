"""The mutants of a Lua script: small changes of its tokens that leave it syntactically valid.

Local assignments are not changed: without them the script would end in an error at once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from mutation.change import Change
from mutation.python_rules import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TOKEN: Final = re.compile(
    r"(?P<skip>\s+|--\[\[.*?\]\]|--[^\n]*|\A#![^\n]*)"
    r"|(?P<string>'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<sign>\.\.\.|\.\.|[<>=~]=|[-+*/%^#<>=(){}\[\];:,.])",
    re.DOTALL,
)
_SWAPPED: Final[Mapping[str, str]] = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "~=",
    "~=": "==",
    "and": "or",
    "or": "and",
    "true": "false",
    "false": "true",
    "+": "-",
    "-": "+",
    "*": "+",
    "/": "*",
    "min": "max",
    "max": "min",
}
_OPENS: Final = frozenset({"(", "{", "[", "function", "if", "for", "while"})
_CLOSES: Final = frozenset({")", "}", "]", "end"})
_BEFORE_STATEMENT: Final = frozenset({"then", "do", "else", ";"})
_AFTER_STATEMENT: Final = frozenset({"end", "else", "elseif", "until", ";"})
_NO_STATEMENT: Final = frozenset(
    {"local", "return", "if", "for", "while", "function", "end", "else", "elseif"}
)
_GOES_ON: Final = frozenset(
    {"and", "or", "not", "return", "=", "..", "+", "-", "*", "/", "<", ">", "<=", ">=", "==", "~=", ","}
)
_FLAG: Final = re.compile(r"'[A-Z]{2,}'")


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int
    first: bool
    """True for the first token of a line."""


def _tokens(source: str) -> list[_Token]:
    tokens: list[_Token] = []
    first, at = True, 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            raise ValueError(f"not a Lua token at character {at}: {source[at : at + 20]!r}")
        at = found.end()
        if found.lastgroup == "skip":
            first = first or "\n" in found[0]
        else:
            tokens.append(_Token(str(found.lastgroup), found[0], found.start(), at, first))
            first = False
    return tokens


def lua_mutants(file: str, source: str) -> list[Change]:
    """Return all mutants of a Lua script, in no particular order."""
    return list(_Mutants(file, source).all())


class _Mutants:
    def __init__(self, file: str, source: str) -> None:
        self._file = file
        self._source = source
        self._tokens = _tokens(source)

    def _text(self, index: int) -> str:
        return self._tokens[index].text if 0 <= index < len(self._tokens) else ""

    def _change(self, first: int, last: int, replacement: str, rule: str) -> Change:
        """Return the replacement of the tokens from `first` to `last`."""
        start, end = self._tokens[first].start, self._tokens[last].end
        return Change(self._file, start, end, replacement, rule)

    def all(self) -> Iterator[Change]:
        """Yield the mutants of all tokens."""
        for index, token in enumerate(self._tokens):
            if token.kind != "string" and token.text in _SWAPPED and self._is_swappable(index):
                yield self._change(index, index, _SWAPPED[token.text], f"swap {token.text}")
            if token.kind == "number":
                yield from self._of_number(index)
            if token.text == "not":
                yield self._change(index, index, "", "drop not")
            if token.text in {"if", "elseif"}:
                yield from self._negated(index)
            if token.text == "return" and self._text(index + 1) == "end":
                yield self._change(index, index, "", "drop return")
            if self._begins_statement(index):
                yield from self._dropped(index)
            if token.kind == "string" and _FLAG.fullmatch(token.text):
                yield from self._without_flag(index)

    def _of_number(self, index: int) -> Iterator[Change]:
        number = int(self._text(index))
        if number >= LARGE:
            yield self._change(index, index, str(number * 2), "double")
            return
        yield self._change(index, index, str(number + 1), "add one")
        if number > 0:
            yield self._change(index, index, str(number - 1), "subtract one")

    def _is_swappable(self, index: int) -> bool:
        """Return whether a sign is between two values: a minus may also belong to a number."""
        before = self._tokens[index - 1]
        is_value = before.kind in {"number", "string", "word"} or before.text in {")", "]", "}"}
        return self._text(index) not in {"+", "-", "*", "/"} or (is_value and before.text not in _GOES_ON)

    def _negated(self, index: int) -> Iterator[Change]:
        last = index + 1
        while self._text(last + 1) != "then":
            last += 1
        start, end = self._tokens[index + 1].start, self._tokens[last].end
        yield Change(self._file, start, end, f"not ({self._source[start:end]})", "negate condition")

    def _begins_statement(self, index: int) -> bool:
        token = self._tokens[index]
        if token.kind != "word" or token.text in _NO_STATEMENT:
            return False
        before = self._text(index - 1)
        if before in _BEFORE_STATEMENT:
            return True
        after_head = before == ")" and self._closes_head(index - 1)
        return after_head or (token.first and before not in _GOES_ON and before not in {"(", "{", "["})

    def _closes_head(self, index: int) -> bool:
        """Return whether a parenthesis closes the parameters of a function."""
        while self._text(index) != "(":
            index -= 1
        return "function" in {self._text(index - 1), self._text(index - 2)}

    def _dropped(self, first: int) -> Iterator[Change]:
        """Yield the removal of a call or an assignment."""
        depth, last, is_assignment = 0, first, False
        for index in range(first, len(self._tokens)):
            token = self._tokens[index]
            is_over = token.text in _AFTER_STATEMENT or (token.first and token.text not in _GOES_ON)
            if index > first and depth == 0 and is_over and self._text(index - 1) not in _GOES_ON:
                break
            depth += (token.text in _OPENS) - (token.text in _CLOSES)
            is_assignment = is_assignment or (token.text == "=" and depth == 0)
            last = index
        if is_assignment or self._text(last) == ")":
            yield self._change(first, last, "", "drop statement")

    def _without_flag(self, index: int) -> Iterator[Change]:
        """Yield the removal of an argument in capitals that is not a command's name."""
        if self._text(index - 1) == ",":
            yield self._change(index - 1, index, "", f"drop {self._text(index)}")
