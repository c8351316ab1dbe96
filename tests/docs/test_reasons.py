"""Test docs/reasons.md against the table of reasons."""

from __future__ import annotations

from deltaloom.reasons import REASONS
from tests.docs.pages import ROOT, Page, quoted

CONTRACT = "[contract](contract.md)"


def test_the_table_is_that_of_the_library() -> None:
    """List the table's rows in order."""
    written: list[tuple[str | bool, ...]] = []
    for *names, values, recorded, source in Page(ROOT / "docs/reasons.md").table("Values"):
        provider, field, reason_class = (quoted(cell)[0] for cell in names)
        page = "docs/contract.md" if source == CONTRACT else source.strip("<>")
        written += [
            (provider, field, value, reason_class, page, value in quoted(recorded))
            for value in quoted(values)
        ]
    assert written == [tuple(row) for row in REASONS]
