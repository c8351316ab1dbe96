"""Test the choice of mutants, and of the tests that run first."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutation.checkout import ROOT
from mutation.equivalent import Equivalent, Equivalents
from mutation.nearest import nearest_tests
from mutation.sample import SCOPE, choose, files_in

NONE = Equivalents([])


def test_a_seed_is_always_the_same_mutants() -> None:
    """Choose the same mutants from one seed, so that a run can be repeated."""
    paths = ["handlers/core", "service/storage/lua/settle.lua"]
    first = choose(ROOT, paths, "1", 5, NONE)
    assert choose(ROOT, paths, "1", 5, NONE) == first
    assert choose(ROOT, paths, "2", 5, NONE) != first
    assert sum(change.file.endswith(".lua") for change in first) == 5
    assert len(first) == 10


def test_equivalent_mutants_are_not_chosen(tmp_path: Path) -> None:
    """Skip equivalent mutants, which always survive."""
    (tmp_path / "code.py").write_text("x = a < b\n")
    known = Equivalents([Equivalent("code.py", "x = a < b", "x = a <= b", "")])
    assert len(choose(tmp_path, ["code.py"], "1", 9, NONE)) == 1
    assert choose(tmp_path, ["code.py"], "1", 9, known) == []


def test_only_code_is_changed() -> None:
    """Choose Python and Lua files only."""
    files = list(files_in(ROOT, ["service"]))
    assert {"service/apps/worker_app.py", "service/storage/lua/commit.lua"} <= set(files)
    assert {Path(file).suffix for file in files} == {".py", ".lua"}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(files_in(ROOT, ["nowhere"]))


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("service/pipeline/decode.py", ["tests/service/pipeline/test_decode.py", "tests/service/pipeline"]),
        ("client/deltaloom/events.py", ["tests/client/test_events.py"]),
        ("service/storage/lua/settle.lua", ["tests/service/storage/test_settle_plan.py"]),
        ("service/alerts/destinations/apprise_.py", ["tests/service/alerts/destinations/test_apprise.py"]),
    ],
)
def test_the_tests_of_the_same_module_are_run_first(file: str, first: list[str]) -> None:
    """Run the tests of the same module first. Otherwise each mutant would cost a whole run."""
    found = nearest_tests(ROOT, file)
    assert found[: len(first)] == first
    assert [test for test in found if not (ROOT / test).exists()] == []


def test_every_file_has_tests_that_are_run_first() -> None:
    """Find tests for each file."""
    assert [file for file in files_in(ROOT, SCOPE) if not nearest_tests(ROOT, file)] == []
