"""Test that the list of sabotages matches the tree."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from mutation.checkout import ROOT
from mutation.sabotage import Sabotage, SabotageError, read_sabotages

if TYPE_CHECKING:
    from pathlib import Path

SABOTAGES = read_sabotages()
AREAS = (
    "handlers/",
    "handlers/core/",
    "service/pipeline/",
    "service/storage/",
    "service/alerts/",
    "service/cli/",
)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_a_sabotage_fits_the_tree(sabotage: Sabotage) -> None:
    """Find each sabotage's text in its file. Otherwise only a run of an hour would show the mismatch."""
    source = (ROOT / sabotage.file).read_text("utf-8")
    changed = sabotage.change(ROOT).apply(source)
    assert changed == source.replace(sabotage.find, sabotage.replace) != source
    if sabotage.file.endswith(".py"):
        ast.parse(changed)
    assert sabotage.tests
    assert [test for test in sabotage.tests if not (ROOT / test.partition("::")[0]).exists()] == []


def test_all_areas_have_sabotages() -> None:
    """Cover all areas with at least 30 sabotages, five of them in Lua."""
    assert len(SABOTAGES) >= 30
    assert max(Counter(sabotage.name for sabotage in SABOTAGES).values()) == 1
    files = [sabotage.file for sabotage in SABOTAGES]
    assert [area for area in AREAS if not any(file.startswith(area) for file in files)] == []
    assert sum(file.endswith(".lua") for file in files) >= 5


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nothing", "sabotage 'x': its text occurs 0 times in code.py, not once"),
        ("here, here", "sabotage 'x': its text occurs 2 times in code.py, not once"),
        (None, "sabotage 'x': code.py cannot be read"),
    ],
)
def test_a_sabotage_that_does_not_fit_is_named(tmp_path: Path, text: str | None, error: str) -> None:
    """Name the sabotage that does not match."""
    if text is not None:
        (tmp_path / "code.py").write_text(text)
    sabotage = Sabotage("x", "code.py", "here", "there", "all", ("tests",))
    with pytest.raises(SabotageError, match=error):
        sabotage.change(tmp_path)
