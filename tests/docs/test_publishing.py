"""Test docs/publishing.md against the publisher."""

from __future__ import annotations

from typing import get_args

from deltaloom.publishing.books import LossReason
from tests.docs.pages import ROOT, Page, quoted


def test_each_reason_of_a_loss_is_described() -> None:
    """List the reasons in order."""
    rows = Page(ROOT / "docs/publishing.md").table("Counters")
    assert [quoted(row[0])[0] for row in rows] == list(get_args(LossReason))
