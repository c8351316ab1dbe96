"""The choice of mutants by a seed, and the share of them that must be killed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from mutation.lua_rules import lua_mutants
from mutation.python_rules import compiles, python_mutants

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mutation.change import Change
    from mutation.equivalent import Equivalents

SCOPE: Final = ("archive", "client/deltaloom", "embedded", "handlers", "service", "tap")
"""Folders to sample, unless the command line names others."""

GOALS: Final[Mapping[str, float]] = {"Python": 0.98, "Lua": 0.95}
"""Minimum share of killed mutants, by language."""


def language_of(file: str) -> str:
    """Return the language of a file."""
    return "Lua" if file.endswith(".lua") else "Python"


def files_in(root: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield the Python files and Lua scripts in these paths.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    for path in paths:
        found = root / path
        if not found.exists():
            raise FileNotFoundError(path)
        files = [found] if found.is_file() else sorted(found.rglob("*"))
        for file in files:
            name = file.relative_to(root).as_posix()
            if file.suffix in {".py", ".lua"}:
                yield name


def choose(root: Path, paths: Sequence[str], seed: str, count: int, equivalents: Equivalents) -> list[Change]:
    """Return at most `count` mutants of each language, the same for the same seed and tree."""
    by_language: dict[str, list[Change]] = {language: [] for language in GOALS}
    sources: dict[str, str] = {}
    for file in dict.fromkeys(files_in(root, paths)):
        sources[file] = (root / file).read_text("utf-8")
        mutants = (lua_mutants if file.endswith(".lua") else python_mutants)(file, sources[file])
        by_language[language_of(file)] += sorted(set(mutants))
    chosen: list[Change] = []
    for language, mutants in by_language.items():
        chance = random.Random(f"{seed} {language}")
        shuffled = chance.sample(mutants, len(mutants))
        usable = (each for each in shuffled if _is_usable(each, sources[each.file], equivalents))
        chosen += [mutant for mutant, _ in zip(usable, range(count), strict=False)]
    return sorted(chosen)


def _is_usable(mutant: Change, source: str, equivalents: Equivalents) -> bool:
    if equivalents.has(mutant, source):
        return False
    return language_of(mutant.file) == "Lua" or compiles(mutant, source)
