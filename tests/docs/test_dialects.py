"""Test docs/dialects.md against the library."""

from __future__ import annotations

import subprocess
import sys

from deltaloom.dialects import DIALECTS
from tests.docs.pages import ROOT, Page, quoted

PAGE = Page(ROOT / "docs/dialects.md")


def test_every_dialect_is_listed_with_provider_and_paths() -> None:
    """List the dialects in the order in which they are tried."""
    rows = [
        (quoted(name)[0], quoted(provider)[0], tuple(quoted(paths)))
        for name, provider, paths, _ in PAGE.table("What is read")
    ]
    assert rows == [(each.name, each.provider, each.path_parts) for each in DIALECTS]


def test_every_dialect_is_explained() -> None:
    """Say for each dialect what a refusal, reasoning and a block are."""
    title = "What a provider calls a refusal, reasoning, a block"
    assert {quoted(row[0])[0] for row in PAGE.table(title)} == {each.name for each in DIALECTS}


def test_the_example_runs() -> None:
    """Run the page's example."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples/translate.py"], check=True, capture_output=True, text=True
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "response.created",
        "response.refusal.delta",
        "response.refusal.done",
        "response.completed",
    ]
