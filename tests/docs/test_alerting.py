"""Test docs/alerting.md against the rules, the check and the explanation."""

from __future__ import annotations

import pytest

from service.alerts.deciding.config import parse
from service.alerts.deciding.findings import ConfigError
from service.alerts.deciding.rules import shipped
from service.alerts.deciding.schema import Match
from tests.docs.pages import ROOT, Page, quoted
from tests.integration.test_cli_alerts import EXPLAINED

ALERTING = Page(ROOT / "docs/alerting.md")

MISTAKEN = """
[destinations.on-call]
type = "slack"
url = "https://hooks.example/x"

[[routes]]
match = { severity = ["warning", "critcal"] }
to = "on-call"
txt = "full"
"""


def texts() -> list[str]:
    """Return the program output that the page shows."""
    return [block.text for block in ALERTING.blocks if block.language == "text"]


def test_the_rules_that_ship() -> None:
    """List the shipped rules with severity and category."""
    rows = [(name, severity, category) for name, severity, category, _ in ALERTING.table("Rules")]
    assert rows == [
        (f"`{rule.name}`", rule.severity or "the worker's", f"`{rule.category or rule.name}`")
        for rule in shipped()
    ]


def test_the_keys_of_a_match() -> None:
    """List the keys of a `match`."""
    keys = [key for keys, _ in ALERTING.table("Routes") for key in quoted(keys)]
    assert keys == list(Match.model_fields)


def test_mistakes_and_explanations() -> None:
    """Show the program's real errors and explanations."""
    with pytest.raises(ConfigError) as raised:
        parse(MISTAKEN, "alerts.toml")
    assert f"{raised.value}\n" in texts()
    assert f"{EXPLAINED.rstrip()}\n" in texts()
