"""Test the checks of words and names: each finds its faults, and accepts good code."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from checks import commits, english, names

if TYPE_CHECKING:
    from pathlib import Path

GOOD = '''"""Read a file."""

LIMIT = 3
"""Maximum number of attempts."""


def read():
    """Return the text."""
'''


@pytest.mark.parametrize(
    ("good", "bad", "word"),
    [
        ("Read a file.", "What reads a file.", "What"),
        ("Maximum number", "Of attempts, the most", "Of"),
        ("Return the text.", "Whether there is a text.", "Whether"),
    ],
)
def test_a_docstring_that_opens_with_a_fragment_is_found(
    tmp_path: Path, good: str, bad: str, word: str
) -> None:
    """Report fragments that open the docstrings of modules, functions and constants."""
    path = tmp_path / "module.py"
    path.write_text(GOOD)
    assert list(english.findings(path)) == []
    path.write_text(GOOD.replace(good, bad))
    (found,) = english.findings(path)
    assert f"opens with {word!r}" in found


def test_a_word_that_only_begins_like_a_fragment_is_accepted(tmp_path: Path) -> None:
    """Accept words with a fragment as prefix, such as "Offset"."""
    path = tmp_path / "module.py"
    path.write_text('"""Offset of a chunk."""\n')
    assert list(english.findings(path)) == []


def test_the_wrong_article_before_url_is_found(tmp_path: Path) -> None:
    """Report the wrong article before "URL"."""
    text = "Give an " + "URL."
    assert list(english.misspellings(tmp_path, text)) == [f"{tmp_path}:1: write 'a URL'"]
    assert list(english.misspellings(tmp_path, "Give a URL.")) == []


def test_two_classes_or_modules_with_one_name_are_found(tmp_path: Path) -> None:
    """Report two classes or modules with one name."""
    paths = [tmp_path / "a" / "thing.py", tmp_path / "b" / "thing.py", tmp_path / "b" / "other.py"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    paths[1].write_text("class Entry:\n    pass\n")
    paths[2].write_text("class Entry:\n    pass\n")
    assert [line.split(":")[0] for line in names.findings(paths)] == [
        "module 'thing' is defined more than once",
        "class 'Entry' is defined more than once",
    ]
    assert list(names.findings(paths[1:2])) == []


def test_a_long_subject_of_a_new_commit_is_found(tmp_path: Path) -> None:
    """Check the subjects of new commits only."""

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
        command = ["git", *identity, *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch=main")
    git("commit", "--quiet", "--allow-empty", "--message", "x" * 100)
    git("tag", "old")
    git("commit", "--quiet", "--allow-empty", "--message", "y" * 72)
    assert list(commits.findings(tmp_path, "old..HEAD")) == []
    git("commit", "--quiet", "--allow-empty", "--message", "z" * 73)
    (found,) = commits.findings(tmp_path, "old..HEAD")
    assert "73 characters, at most 72" in found
