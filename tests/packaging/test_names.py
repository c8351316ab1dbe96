"""Test the import names: other packages could hide `archive`, `console`, `handlers`, `service` or `tap`."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("archive", "deltaloom-worker"),
        ("console", "deltaloom-worker"),
        ("deltaloom", "deltaloom"),
        ("handlers", "deltaloom-worker"),
        ("service", "deltaloom-worker"),
        ("tap", "deltaloom-worker"),
    ],
)
def test_single_owner(name: str, owner: str) -> None:
    """Own each import name alone.

    An editable install lists no packages, so that an empty set of owners is accepted.
    """
    owners = set(importlib.metadata.packages_distributions().get(name, []))
    assert owners <= {owner}
    assert importlib.metadata.version(owner)


@pytest.mark.parametrize("name", ["archive", "console", "deltaloom", "handlers", "service", "tap"])
def test_single_place_on_the_path(name: str) -> None:
    """Find each package once on the path. Otherwise its order would decide which one is imported."""
    folders = {Path(entry).resolve() for entry in sys.path}
    assert len([f for f in folders if (f / name).is_dir() or (f / f"{name}.py").is_file()]) == 1


@pytest.mark.parametrize(
    "name", ["archive", "console", "deltaloom", "demo", "embedded", "handlers", "service", "tap", "tests"]
)
def test_regular_package_of_this_tree(name: str) -> None:
    """Import regular packages of this tree, since a namespace package merges all folders of its name."""
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).is_relative_to(ROOT)
