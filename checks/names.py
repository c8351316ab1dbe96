"""Find classes and modules of the program that share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


def findings(files: Iterable[Path]) -> Iterator[str]:
    """Yield a line for each name that several classes or several modules have."""
    modules, classes = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for path in files:
        if not path.stem.startswith("__"):
            modules[path.stem].append(str(path))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{path}:{node.lineno}")
    yield from _doubles("module", modules)
    yield from _doubles("class", classes)


def _doubles(what: str, places: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name, found in sorted(places.items()):
        if len(found) > 1:
            yield f"{what} {name!r} is defined more than once: {', '.join(found)}"
