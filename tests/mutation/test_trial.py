"""Test how a copy of the tree is changed and tested."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from mutation.change import Change
from mutation.checkout import ROOT, Checkout, CheckoutError
from mutation.command import NOT_RUN, main
from mutation.report import show_sample
from mutation.suite import Outcome, SuiteError, run_tests
from mutation.trial import Result, check_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    """Return a copy of this tree."""
    with Checkout() as made:
        yield made
    assert not made.folder.exists()


def test_a_change_is_made_in_the_copy_only_and_taken_back(checkout: Checkout) -> None:
    """Change the copy only, and restore it afterwards."""
    file = "handlers/core/text.py"
    source = (ROOT / file).read_text("utf-8")
    with checkout.changed(Change(file, 0, 0, "x = 1\n", "")):
        assert (checkout.folder / file).read_text("utf-8") == f"x = 1\n{source}"
        assert (ROOT / file).read_text("utf-8") == source
    assert (checkout.folder / file).read_text("utf-8") == source


def test_a_copy_can_be_copied(checkout: Checkout) -> None:
    """Copy a copy, as these tests do in a copy."""
    with Checkout(checkout.folder) as again:
        assert (again.folder / "Makefile").read_text("utf-8") == (ROOT / "Makefile").read_text("utf-8")


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    """Refuse a folder that is not a git repository. Otherwise an empty copy would be tested."""
    with pytest.raises(CheckoutError, match=r"git cannot copy .* does not exist"), Checkout(tmp_path):
        pass


IMPORTS = """
from pathlib import Path

import service

def test_it():
    assert Path(service.__file__).parents[1] == Path.cwd()
"""


PARAMETRIZED = """
import pytest

@pytest.mark.parametrize("n", [1], ids=["two words"])
def test_it(n):
    print("ERROR of another kind")
    assert n == 2, "no - not so"
"""


@pytest.mark.parametrize(
    ("code", "limit", "red", "test"),
    [
        (IMPORTS, 60, False, None),
        (PARAMETRIZED, 60, True, "tests/made/test_made.py::test_it[two words]"),
        pytest.param("import nowhere", 60, True, "tests/made/test_made.py", marks=pytest.mark.slow),
        pytest.param("import time\ndef test_it(): time.sleep(600)", 5, True, None, marks=pytest.mark.slow),
    ],
    ids=["passes, on the copy", "fails", "cannot be imported", "hangs"],
)
async def test_how_a_run_ends(
    checkout: Checkout, code: str, limit: float, *, red: bool, test: str | None
) -> None:
    """Report whether a run failed, and by which test."""
    made = checkout.folder / "tests" / "made" / "test_made.py"
    made.parent.mkdir(exist_ok=True)
    made.write_text(code)
    outcome = await run_tests(checkout, ["tests/made/test_made.py"], limit)
    assert (outcome.red, outcome.test) == (red, test)


@pytest.mark.slow
async def test_a_run_without_tests_is_an_error(checkout: Checkout) -> None:
    """Raise an error if no test ran. Otherwise each mutant would count as killed."""
    with pytest.raises(SuiteError, match="no test failed"):
        await run_tests(checkout, ["made/nowhere.py"], 60)


@pytest.mark.slow
def test_a_sample_from_beginning_to_end(tmp_path: Path) -> None:
    """Run a sample of one mutant end to end."""
    report = tmp_path / "report.json"
    sample = [
        "sample",
        "--seed",
        "1",
        "--count",
        "1",
        "--path",
        "handlers/core/text.py",
        "--json",
        str(report),
    ]
    assert main([*sample, "--only", "tests/handlers/core/test_text.py"]) == 0
    (result,) = json.loads(report.read_text("utf-8"))["results"]
    assert result["killed"]
    assert result["by"].startswith("tests/handlers/core/test_text.py")
    assert result["place"].startswith("handlers/core/text.py:")


@pytest.mark.slow
async def test_a_test_that_fails_anyway_ends_a_run(checkout: Checkout) -> None:
    """Refuse a test that fails without a change. Otherwise it would seem to detect all changes."""
    made = checkout.folder / "tests" / "made" / "test_made.py"
    made.parent.mkdir(exist_ok=True)
    made.write_text("def test_it(): assert False")
    with pytest.raises(SuiteError, match=r"made/test_made\.py::test_it fails without any change"):
        await check_unchanged(checkout, "tests/made/test_made.py::test_it")


def result(file: str, test: str | None = None) -> Result:
    """Return the result of a change that `test` detected, or that survived."""
    return Result(
        Change(file, 6, 7, "<=", "swap"), "x = a < b", Outcome(test is not None, test, 1.5), by_first=True
    )


def test_a_survivor_is_shown_and_misses_the_goal() -> None:
    """Show survivors, and report whether the goal is met."""
    console = Console(record=True, width=120)
    some = [result("a/x.py", "t")] * 97
    assert not show_sample(console, [*some, *[result("a/y.py")] * 2], "7")
    output = console.export_text()
    assert "survived: a/y.py:1 (swap)" in output
    assert "+x = a <= b" in output
    assert "seed 7" in output
    assert "not met" in output
    assert show_sample(console, [*some, result("a/x.lua", "t")], "7")
    assert not show_sample(console, [*some, *[result("a/x.lua", "t")] * 18, result("a/y.lua")], "7")


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Refuse unknown names, with the exit code for a run that did not happen."""
    assert main(["sabotage", "nothing"]) == NOT_RUN
    assert "unknown sabotage: nothing" in capsys.readouterr().err
    assert main(["sample", "--path", "nowhere"]) == NOT_RUN
