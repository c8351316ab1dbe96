"""The line at the end of a run about the tests that were not run, and the commands that run them.

The tests have three tiers: `make test` leaves out those marked `slow` and `prove`, `make test-all` those
marked `prove`, and `make prove` runs nothing else. A test that needs a program of the machine calls `need`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

HOW_TO_RUN = {"slow": "make test-all", "prove": "make prove"}
_NEEDS = re.compile(r"needs (.*)$")


def need(*programs: str, what: str, package: str, variable: str | None = None) -> str:
    """Return the path of the first of these programs that exists; skip the test if none does.

    Args:
        programs: names to look for on the path.
        what: a readable name of the program.
        package: the Debian package that contains it.
        variable: an environment variable with the program's path, which takes precedence.
    """
    if variable and (given := os.environ.get(variable)):
        return given
    found = next(filter(None, map(shutil.which, programs)), None)
    if found is None:
        lack(what, package)
    return found


def lack(what: str, package: str) -> NoReturn:
    """Skip the test, since the machine lacks a program."""
    pytest.skip(f"needs {what} (Debian: {package})")


def left_out(items: Iterable[pytest.Item]) -> Counter[str]:
    """Count the deselected tests of each tier."""
    return Counter(tier for item in items for tier in HOW_TO_RUN if item.get_closest_marker(tier) is not None)


def not_run(tiers: Counter[str], skipped: Sequence[pytest.TestReport]) -> str | None:
    """Return the line about tests that were left out or skipped; None if there are none."""
    needs: Counter[str] = Counter()
    for report in skipped:
        if isinstance(report.longrepr, tuple) and (found := _NEEDS.search(report.longrepr[2])):
            needs[found[1]] += 1
    parts = [f"{count} {tier} ({HOW_TO_RUN[tier]})" for tier, count in sorted(tiers.items())]
    parts += [f"{count} that need {what}" for what, count in sorted(needs.items())]
    return f"not run: {', '.join(parts)}" if parts else None
