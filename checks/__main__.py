"""Run the checks; exit with 1 if they find something.

python -m checks [--commits RANGE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from checks import commits, english, names

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PROGRAM = ("archive", "client/deltaloom", "console", "demo", "embedded", "handlers", "service", "tap")
"""Folders in which no two classes and no two modules share a name."""

ALL = (*PROGRAM, "bench", "chaos", "checks", "hostile", "mutation", "release", "tests")


def python_files(*folders: str) -> list[Path]:
    """Return the Python files in these folders, in order."""
    return sorted(path for folder in folders for path in Path(folder).rglob("*.py"))


def run(commit_range: str | None) -> Iterator[str]:
    """Yield all findings."""
    for path in python_files(*ALL):
        yield from english.findings(path)
    for path in sorted(Path().glob("*.md")) + sorted(Path("docs").rglob("*.md")):
        yield from english.misspellings(path, path.read_text("utf-8"))
    yield from names.findings(python_files(*PROGRAM))
    if commit_range:
        yield from commits.findings(ROOT, commit_range)


def main() -> int:
    """Print what was found; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m checks", description=__doc__)
    parser.add_argument("--commits", metavar="RANGE", help="commits to check, like main..HEAD")
    found = list(run(parser.parse_args().commits))
    for line in found:
        print(line)  # noqa: T201 - output of a command
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
