"""Test that the list of equivalent mutants matches the tree."""

from __future__ import annotations

import pytest

from mutation.change import Change
from mutation.checkout import ROOT
from mutation.equivalent import Equivalent, Equivalents
from mutation.lua_rules import lua_mutants
from mutation.python_rules import python_mutants


@pytest.mark.parametrize("known", Equivalents.read().known, ids=lambda known: f"{known.file}: {known.after}")
def test_an_equivalent_mutant_can_be_made(known: Equivalent) -> None:
    """Make each listed mutant. Otherwise an outdated entry would keep a false reason."""
    source = (ROOT / known.file).read_text("utf-8")
    mutants = (lua_mutants if known.file.endswith(".lua") else python_mutants)(known.file, source)
    assert (known.before, known.after) in {change.lines(source) for change in mutants}
    assert known.reason


def test_a_mutant_is_known_by_its_lines() -> None:
    """Identify a mutant by its lines, so that changes above it do not matter."""
    known = Equivalents([Equivalent("code.py", "x = a < b", "x = a <= b", "they differ")])
    change = Change("code.py", 4 + 6, 4 + 7, "<=", "swap comparison")
    assert change.lines("f()\nx = a < b\n") == ("x = a < b", "x = a <= b")
    assert known.has(change, "f()\nx = a < b\n")
    assert not known.has(change, "f()\ny = a < b\n")
