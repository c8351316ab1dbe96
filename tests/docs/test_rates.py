"""Test that docs/rates.md shows the table that the command prints at 80 columns."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from deltaloom import ModerationAlert
from service.cli.alerts.rates import table_of
from service.rates.proportions import Count
from service.rates.spikes import Rates, Subject
from tests.docs.pages import ROOT, Page

COLUMNS = 80
NOW = datetime(2026, 5, 4, 14, 25, tzinfo=UTC).astimezone().replace(hour=14, minute=25)
WINDOW = {
    Subject("model", "gpt-4o"): Count(214, 62, 1),
    Subject("model", "gpt-4o-mini-2024-07-18"): Count(96, 1, 2),
    Subject("provider", "azure.ai.openai"): Count(310, 63, 3),
    Subject("tenant", "acme"): Count(180, 62, 0),
    Subject("tenant", "globex"): Count(9, 2, 0),
}
BEFORE = {
    Subject("model", "gpt-4o"): Count(20_418, 212, 102),
    Subject("model", "gpt-4o-mini-2024-07-18"): Count(9_120, 88, 64),
    Subject("provider", "azure.ai.openai"): Count(129_538, 900, 166),
    Subject("tenant", "acme"): Count(16_004, 190, 40),
    Subject("tenant", "globex"): Count(410, 3, 1),
}


def printed() -> str:
    """Return the table at 80 columns."""
    now_ms = round(NOW.timestamp() * 1000)
    rates = Rates(now_ms, now_ms - 300_000, now_ms - 86_400_000, WINDOW, BEFORE)
    began = ModerationAlert(
        type="deltaloom.refusal.spike",
        id="spike_1",
        severity="critical",
        text="",
        raised_at=NOW - timedelta(seconds=30),
    )
    spikes = {subject: began for subject, count in WINDOW.items() if count.refused > 50}
    target = Console(file=io.StringIO(), width=COLUMNS, color_system=None)
    target.print(table_of(rates, sorted(WINDOW), spikes, enough=50))
    assert isinstance(target.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in target.file.getvalue().splitlines())


def test_the_table() -> None:
    """Show the printed table."""
    shown = printed()
    assert max(map(len, shown.splitlines())) <= COLUMNS
    page = Page(ROOT / "docs/rates.md")
    assert f"$ deltaloom alerts rates\n{shown}" in [block.text for block in page.blocks]
