"""Test docs/monitoring.md against the metrics of the code."""

from __future__ import annotations

import re
from typing import get_args

from archive.archive_figures import OUTCOMES
from deltaloom.messages import KnownUndeliveredReason
from service.observability.metrics.catalog import STORED_COUNT_NAMES
from tests.deploy.metric_names import METRICS as RULES_MAY_USE
from tests.docs.metrics_tables import PAGE, with_tables
from tests.docs.pages import Page, quoted


def test_tables_are_those_of_the_code() -> None:
    """Describe every metric with its name, type and labels."""
    page = PAGE.read_text("utf-8")
    assert with_tables(page) == page, "run python -m tests.docs.metrics_tables --write"


def test_names_in_the_text_exist() -> None:
    """Name every metric that rules may use, and none that nobody exports."""
    names = {f"deltaloom_{name}" for name in RULES_MAY_USE}
    page = Page(PAGE)
    written = " ".join([*page.code, *(block.text for block in page.blocks)])
    named = set(re.findall(r"deltaloom_\w+", written))
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in named} == names


def test_values_of_labels_are_explained() -> None:
    """Explain each stored count and each outcome of a delivery."""
    page = Page(PAGE)
    assert [quoted(row[0])[0] for row in page.table("Stored counts")] == list(STORED_COUNT_NAMES)
    outcomes = {quoted(row[0])[0] for row in page.table("Outcomes of deliveries")}
    assert outcomes == {"delivered", "retry", *get_args(KnownUndeliveredReason)}
    assert [quoted(row[0])[0] for row in page.table("Outcomes of entries")] == list(OUTCOMES)
