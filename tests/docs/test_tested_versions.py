"""Test that the versions that the pages and packages name are those that CI tests."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.docs.pages import OPERATIONS, ROOT

CI = (ROOT / ".ci" / "run").read_text("utf-8")
STEPS = {
    version
    for step in re.findall(r"^ *step .*", CI, re.MULTILINE)
    for version in re.findall(r"(?:Python|Redis|Valkey) \d+(?:\.\d+)?", step)
}


def test_the_page_lists_the_versions_of_ci() -> None:
    """Otherwise the page would promise versions that nobody tests."""
    assert {row[0] for row in OPERATIONS.table("Tested versions")} == STEPS


@pytest.mark.parametrize("project", ["pyproject.toml", "client/pyproject.toml"])
def test_classifiers_are_the_versions_of_ci(project: str) -> None:
    """Otherwise the package would promise versions of Python that nobody tests."""
    classifiers = tomllib.loads((ROOT / project).read_text("utf-8"))["project"]["classifiers"]
    versions = {each.rpartition(" ")[2] for each in classifiers if ":: Python :: 3." in each}
    assert {f"Python {version}" for version in versions} == {each for each in STEPS if "Python" in each}
