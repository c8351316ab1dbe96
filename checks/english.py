"""Find docstrings that open with a fragment, and wrong spellings.

A docstring says what a thing is or does, in a sentence or a noun phrase. A docstring that opens with "What"
or "Of" is half a sentence. The list is a minimum: a docstring that passes may still be hard to read.
docs/style.md has examples.
"""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FRAGMENTS = """
    What Whether Who Whose Which How Where When Why Of Those That As If All It Its They So Some Each
    Every Everything Nothing Nobody None Not No One Once At By For From In On To With Without Both
    Only Because Before After Until There This These Such Another More Most Like Beyond Against
"""
FRAGMENTS: Final = frozenset(_FRAGMENTS.split())
"""First words that a docstring must not have."""

MISSPELT: Final = re.compile(r"\ban (?:URL|UTF)\b")
_FIRST_WORD: Final = re.compile(r"\w+")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def findings(path: Path) -> Iterator[str]:
    """Yield a line for each docstring that opens with a fragment, and for each misspelling."""
    source = path.read_text("utf-8")
    for line, docstring in docstrings(ast.parse(source)):
        first = _FIRST_WORD.match(docstring)
        if first is not None and first.group() in FRAGMENTS:
            opening = docstring.splitlines()[0]
            yield f"{path}:{line}: docstring opens with {first.group()!r}: {opening}"
    yield from misspellings(path, source)


def misspellings(path: Path, text: str) -> Iterator[str]:
    """Yield a line for each misspelling in a file."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := MISSPELT.search(line):
            yield f"{path}:{number}: write 'a {found.group()[3:]}'"


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, those of attributes and constants included."""
    for node in ast.walk(tree):
        if isinstance(node, _Documented) and (docstring := ast.get_docstring(node)):
            yield node.body[0].lineno, docstring
        body = getattr(node, "body", None)
        for assigned, text in pairwise(body if isinstance(body, list) else ()):
            if (
                isinstance(assigned, ast.Assign | ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                yield text.lineno, text.value.value
