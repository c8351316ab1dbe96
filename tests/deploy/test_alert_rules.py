"""Test the alert rules for Prometheus, and their runbooks."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.metric_names import unknown
from tests.docs.pages import ROOT, Page
from tests.tiers import need

FOLDER = ROOT / "deploy/prometheus"
RUNBOOKS = ROOT / "docs/runbooks.md"
TOPICS = ("Meaning", "Look", "Do")


def rules() -> list[dict[str, Any]]:
    """Return all rules of the file."""
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


every_rule = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])


@every_rule
def test_rule_uses_metrics_that_exist(rule: dict[str, Any]) -> None:
    """Use only metrics and labels of the program. A rule about another one would never fire."""
    assert unknown(rule["expr"]) == []


@every_rule
def test_rule_has_a_severity_and_a_runbook(rule: dict[str, Any]) -> None:
    """Give whoever is woken up a sentence, a severity and a section of the runbooks."""
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (page, anchor) == ("docs/runbooks.md", rule["alert"].lower())


def test_each_rule_has_a_section_that_says_what_to_do() -> None:
    """Have a section for each rule, in the same order: meaning, what to look at, what to do."""
    sections = re.split(r"^## (\w+)$", RUNBOOKS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    names, texts = sections[::2], sections[1::2]
    in_file = [rule["alert"] for rule in rules()]
    assert names == in_file
    assert {name.lower() for name in names} <= set(Page(RUNBOOKS).anchors)
    for text in texts:
        assert tuple(re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE)) == TOPICS


def test_each_rule_is_tested() -> None:
    """Test each rule: silent, firing, resolved."""
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text("utf-8"))["tests"]
    assert [test["name"] for test in tests] == [rule["alert"] for rule in rules()]
    for test in tests:
        steps = test["alert_rule_test"]
        assert [bool(step["exp_alerts"]) for step in steps] == [False, True, False]
        assert {step["alertname"] for step in steps} == {test["name"]}


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")]
)
def test_prometheus_accepts_the_rules(arguments: tuple[str, ...]) -> None:
    """Have Prometheus' own tool check the rules, and fire and resolve each alert."""
    promtool = need("promtool", what="promtool", package="prometheus")
    done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
