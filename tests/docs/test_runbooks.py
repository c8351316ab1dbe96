"""Test the commands of docs/runbooks.md and docs/operations.md: the user that they name may run them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import OPERATIONS, ROOT, Page
from tests.users import granted

if TYPE_CHECKING:
    from collections.abc import Iterator

ADMIN = "redis-admin"
"""The alias in docs/runbooks.md of redis-cli with an administrator's user."""
OPTIONS = {"--scan", "--memkeys"}
"""Options in place of a command, which redis-cli 7.0 has, too; they need SCAN."""
PAGES = (Page(ROOT / "docs/runbooks.md"), OPERATIONS)


def commands(page: Page) -> Iterator[list[str]]:
    """Yield each call of redis-cli on a page, with its arguments."""
    lines = [line for block in page.blocks if block.language == "sh" for line in block.text.splitlines()]
    for line in (*page.code, *lines):
        if line.startswith(("redis-cli ", f"{ADMIN} ")):
            yield shlex.split(line.partition(" | ")[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_user_may_run_it(page: Page) -> None:
    """The user `operator` may run each command of redis-cli, unless it names the administrator."""
    of_operator = granted("operator")
    found = list(commands(page))
    assert found
    for program, first, *others in found:
        if program == ADMIN:
            assert first in OPTIONS or not first.startswith("-")
        else:
            command = first.lower()
            options = {command, f"{command}|{others[0].lower() if others else ''}"}
            assert options & of_operator, [first, *others]
