"""Import names: `service` and `handlers` are names that others may claim too, and then ours is hidden."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "owner"),
    [("deltaloom", "deltaloom"), ("handlers", "deltaloom-worker"), ("service", "deltaloom-worker")],
)
def test_single_owner(name: str, owner: str) -> None:
    """Another distribution would install files into our package, or its package in place of ours.

    An editable install lists no package, so nobody may own the name here; but nobody else either.
    """
    owners = set(importlib.metadata.packages_distributions().get(name, []))
    assert owners <= {owner}
    assert importlib.metadata.version(owner)


@pytest.mark.parametrize("name", ["deltaloom", "handlers", "service"])
def test_single_place_on_the_path(name: str) -> None:
    """Which of two packages is imported would depend on the order of the path."""
    folders = {Path(entry).resolve() for entry in sys.path}
    assert len([f for f in folders if (f / name).is_dir() or (f / f"{name}.py").is_file()]) == 1


@pytest.mark.parametrize("name", ["deltaloom", "handlers", "service", "tests"])
def test_regular_package_of_this_tree(name: str) -> None:
    """A namespace package is merged with any folder of its name; another's would be tested, not ours."""
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).is_relative_to(ROOT)
