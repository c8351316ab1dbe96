"""Test the whole way from a rule to a pager, through a real Prometheus and a real Alertmanager."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.alertmanagers import alertmanager
from tests.prometheus_servers import prometheus
from tests.receivers import receiving
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RULES = Path(__file__).parents[2] / "deploy/prometheus/rules.yaml"


async def test_an_alertmanager_gets_an_alert_of_the_rules(tmp_path: Path) -> None:
    """The pager gets `DeltaloomNoWorker` if no worker runs, with severity and runbook."""
    async with (
        receiving() as pager,
        alertmanager(tmp_path, pager.url, ["alertname"]) as manager,
        evaluating(tmp_path, manager.url),
    ):
        await wait_until(lambda: bool(pager.received), 60, message="the pager was called")
    paged = [alert for notification in pager.received for alert in notification.json["alerts"]]
    alert = next(each for each in paged if each["labels"]["alertname"] == "DeltaloomNoWorker")
    assert (alert["status"], alert["labels"]["severity"]) == ("firing", "critical")
    assert alert["annotations"]["summary"] == "No worker is being scraped."
    assert alert["annotations"]["runbook_url"].endswith("docs/runbooks.md#deltaloomnoworker")


@asynccontextmanager
async def evaluating(folder: Path, manager: str) -> AsyncIterator[None]:
    """Run a Prometheus that evaluates the rules every second, without their waiting times."""
    rules = yaml.safe_load(RULES.read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0s"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules), "utf-8")
    config = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager.removeprefix("http://")]}]}]},
    }
    # The first alert is lost if Alertmanager is not known yet.
    async with prometheus(folder, config, "--rules.alert.resend-delay=1s"):
        yield
