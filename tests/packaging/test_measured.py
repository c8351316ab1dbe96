"""Test that the coverage of all packages is measured."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

TEST_PROGRAMS = {"bench", "chaos", "hostile", "mutation"}


def test_coverage_is_measured_of_all_packages() -> None:
    """Otherwise a package could be without tests, and the coverage as high as before."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    measured = {Path(folder).name for folder in tools["coverage"]["run"]["source"]}
    assert measured == set(tools["importlinter"]["root_packages"]) - TEST_PROGRAMS
