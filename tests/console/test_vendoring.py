"""Test the libraries in the tree: their hashes, their licences, and what the pages may not contain."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from console import vendoring
from console.vendoring import FOLDER, LIBRARIES, VendoringError, differences, fetch
from tests.tiers import need

if TYPE_CHECKING:
    from pathlib import Path

STATIC = FOLDER.parent
OWN = sorted(
    path
    for path in STATIC.rglob("*")
    if path.suffix in {".js", ".html", ".css"} and FOLDER not in path.parents
)

FORBIDDEN = {
    "markup from a string": re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
    ),
    "code from a string": re.compile(r"\beval\(|new Function|setTimeout\(\s*[\"'`]|javascript:"),
    "an inline style or handler": re.compile(
        r"<style|\sstyle=|\son[a-z]+=\"|<script(?! type=\"module\" src=)"
    ),
    "another host": re.compile(r"(?:src|href|url\(|import|from)\W{0,3}https?://"),
}
"""Mistakes that the policy of the pages would refuse in a browser."""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a folder with the libraries."""
    return shutil.copytree(FOLDER, tmp_path / "vendor")


def test_the_libraries_are_those_that_were_accepted(copied: Path) -> None:
    """Find no difference in the tree, and each kind of difference in a copy."""
    assert differences() == []
    copied.joinpath("preact.js").write_text("changed", "utf-8")
    copied.joinpath("another.js").write_text("foreign", "utf-8")
    copied.joinpath("htm.js").unlink()
    assert differences(copied) == [
        "another.js: is not in vendor.json",
        "preact.js: has another hash than vendor.json",
        "htm.js: is missing",
    ]


def test_each_library_has_its_licence() -> None:
    """Ship the licence of each library, in a file that names it."""
    for library in LIBRARIES:
        assert "icen" in FOLDER.joinpath(f"{library.name}.LICENSE.txt").read_text("utf-8")


def test_a_package_with_another_hash_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write nothing if what npm gives is not what was accepted."""
    monkeypatch.setattr(vendoring, "fetched", lambda _, __: ("sha512-other", {"preact.js": b"other"}))
    with pytest.raises(VendoringError, match=r"preact@.* has other hashes"):
        fetch(accept=False, folder=copied)
    assert differences(copied) == []


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_no_page_does_what_its_policy_refuses(path: Path) -> None:
    """Keep markup and code out of strings, and other hosts out of the pages."""
    text = path.read_text("utf-8")
    assert [what for what, pattern in FORBIDDEN.items() if pattern.search(text)] == []


@pytest.mark.prove
def test_npm_still_has_these_files(copied: Path) -> None:
    """Get the same files from npm."""
    need("npm", what="npm", package="npm")
    for name in {
        name
        for library in json.loads((FOLDER / "vendor.json").read_text("utf-8")).values()
        for name in library["sha256"]
    }:
        copied.joinpath(name).unlink()
    fetch(accept=False, folder=copied)
    assert differences(copied) == []
