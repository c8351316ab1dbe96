"""Test the first steps with alerts in the README and in docs/alerting.md."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.docs.pages import README, Page
from tests.docs.test_alerting import ALERTING, texts
from tests.docs.test_receive_webhook import OURS, receiver
from tests.receivers import receiving
from tests.service.cli.command import deltaloom, environment

if TYPE_CHECKING:
    from pathlib import Path


def first_table(page: Page) -> str:
    """Return the first `alerts.toml` of a page."""
    return next(block.text for block in page.blocks if block.text.startswith("[destinations."))


async def test_five_lines_ring_the_receiver_of_the_examples(tmp_path: Path) -> None:
    """Send the README's test alert to the example receiver."""
    async with receiver() as (url, printed):
        table = first_table(README)
        assert len(table.splitlines()) == 5
        assert "http://127.0.0.1:8080" in table
        (tmp_path / "alerts.toml").write_text(table.replace("http://127.0.0.1:8080", url))
        env = environment(WEBHOOK_SECRET=OURS)
        done = await asyncio.to_thread(deltaloom, "alerts", "test", "team", env=env, cwd=tmp_path)
        assert (done.stdout, done.returncode) == ("team took it: 204 No Content\n", 0), done.stderr
        line = (await asyncio.wait_for(printed.readline(), 60)).decode()
    alert_type, severity, _category, response_id, *_ = line.split()
    assert (alert_type, severity, response_id[:5]) == ("deltaloom.refusal.opened", "info", "test_")


async def test_first_message_to_slack(tmp_path: Path) -> None:
    """Send the page's test message to Slack, with the output that the page shows."""
    async with receiving() as slack:  # the receiver's default answer is Slack's
        table = first_table(ALERTING)
        here = 'url_env = "SLACK_WEBHOOK_URL"\nallow_addresses = ["127.0.0.1"]\n'
        (tmp_path / "alerts.toml").write_text(table.replace('url_env = "SLACK_WEBHOOK_URL"\n', here))
        env = environment(SLACK_WEBHOOK_URL=slack.url)
        output = ""
        for arguments in (("check",), ("test", "team")):
            done = await asyncio.to_thread(deltaloom, "alerts", *arguments, env=env, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            output += done.stdout
    assert output in texts()
    (sent,) = slack.received
    assert "[TEST]" in sent.json["text"]
