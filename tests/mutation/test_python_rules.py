"""Test the mutants of Python code."""

from __future__ import annotations

import pytest

from mutation.checkout import ROOT
from mutation.python_rules import compiles, python_mutants
from mutation.sample import SCOPE, files_in


def mutants(source: str) -> set[str]:
    """Return all mutated sources that compile."""
    changes = python_mutants("code.py", source)
    return {change.apply(source) for change in changes if compiles(change, source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1000", {"x = 2000"}),
        ("a < b", {"pass", "a <= b"}),
        ("x = a is not b", {"x = a is b"}),
        ("x = a not in b", {"x = a in b"}),
        ("x = a == b", {"x = a != b"}),
        ("x = 1 < a", {"x = 1 <= a", "x = 2 < a", "x = 0 < a"}),
        ("x = a and b", {"x = a or b", "x = True and b", "x = a and True"}),
        ("x = a or b", {"x = a and b", "x = False or b", "x = a or False"}),
        ("x = not a", {"x = a"}),
        ("x = a - b", {"x = a + b"}),
        ("x = True", {"x = False"}),
        ("x = 'word'", {"x = 'word_'"}),
        ("x = 'some words'", set()),
        ("x = a if b else c", {"x = a if not (b) else c"}),
        ("x = [a for a in b if a]", {"x = [a for a in b if not (a)]"}),
        ("x.y = a", {"pass"}),
        ("x = min(a, b)", {"x = max(a, b)"}),
        ("x = f(a, b)", {"x = f(b, a)"}),
        ("x = f(*a, b)", set()),
        ("x = f(a, key=b)", {"x = f(a)"}),
        ("x = f(a, a)", set()),
        ("x = f(key=b)", {"x = f()"}),
        ("x += a", {"pass"}),
        ("raise Error(1)", {"pass"}),
        ("if a: f()", {"if not (a): f()", "if a: pass"}),
        ("while a: break", {"while not (a): break", "while a: continue"}),
        ("def f(): return a", {"def f(): return None"}),
        ("def f(): return False", {"def f(): return True"}),
        ("def f(a=1): yield a", {"def f(a=2): yield a", "def f(a=0): yield a", "def f(a=1): pass"}),
        (
            "x = ('ä', 1 < a)",
            {"x = ('ä_', 1 < a)", "x = ('ä', 1 <= a)", "x = ('ä', 2 < a)", "x = ('ä', 0 < a)"},
        ),
        ("try: f()\nexcept E: g()", {"try: pass\nexcept E: g()", "try: f()\nexcept E: pass"}),
    ],
)
def test_mutants_of_a_statement(source: str, expected: set[str]) -> None:
    """Make exactly these mutants of a statement."""
    assert mutants(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""Words."""',
        "import os",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    x = 1",
        "x: Literal[1]",
        "X = Literal['a', 'b']",
        "__slots__ = ('a', 'b')",
        "def f(a: int) -> Literal[1]: ...",
        "log.info('read', entries=1)",
        "logs.logger().error('away', state=1)",
        "x = f'{a} {1}'",
        "assert a < b",
    ],
)
def test_code_that_tests_should_not_depend_on_is_not_mutated(source: str) -> None:
    """Make no mutants of code that tests should not depend on."""
    assert mutants(source) == set()


def test_a_mutant_that_does_not_compile_is_detected() -> None:
    """Detect a mutant that does not compile. Otherwise it would count as killed."""
    source = "x = f((a), key=1)"
    made = python_mutants("code.py", source)
    broken = [change for change in made if change.rule == "drop argument"]
    assert [compiles(change, source) for change in broken] == [False]


def test_all_files_can_be_changed() -> None:
    """Mutate all files without an error. Otherwise a run could end after an hour."""
    for file in files_in(ROOT, SCOPE):
        if file.endswith(".py"):
            source = (ROOT / file).read_text("utf-8")
            assert all(change.apply(source) != source for change in python_mutants(file, source)), file
