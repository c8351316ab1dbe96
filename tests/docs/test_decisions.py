"""Test that each decision has the same sections, and a line in the index."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DECISIONS, DECISIONS_INDEX, Page

every_decision = pytest.mark.parametrize("decision", DECISIONS, ids=lambda page: page.path.stem)


@every_decision
def test_a_decision_has_its_date_and_sections(decision: Page) -> None:
    """Say when a decision was made, why, and what was tried instead."""
    title, *sections = decision.titles
    assert title.startswith(f"{int(decision.path.name[:4])}. ")
    assert sections[:3] == ["Context", "Decision", "What was tried"]
    assert sections[3:] in ([], ["Consequences"])
    assert re.search(r"^Accepted \d{4}-\d{2}-\d{2}", decision.path.read_text("utf-8"), re.MULTILINE)


@every_decision
def test_a_decision_is_in_the_index(decision: Page) -> None:
    """List each decision once, by its number and title."""
    number, title = decision.titles[0].split(". ", 1)
    link = f"[{int(number):04} {title}]({decision.path.name})"
    index = " ".join(DECISIONS_INDEX.path.read_text("utf-8").split())
    assert index.count(f"- {link}") == 1, link
    assert index.count(decision.path.name) == 1


def test_no_two_decisions_have_one_number() -> None:
    """Let a number name one page."""
    numbers = [decision.path.name[:4] for decision in DECISIONS]
    assert len(set(numbers)) == len(numbers)
