"""Test that words are redacted before they are cut: no pattern finds half of what it looks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from console.console_command import loaded
from console.growing_text import GrowingText
from console.live_views import SHOWN
from console.short_fields import LONGEST, LONGEST_TEXT
from console.text_policy import TextPolicy
from handlers.core.assembly import StoredFragment
from handlers.core.identity import Arrival
from service.alerts.deciding.privacy import Redactor
from service.alerts.deciding.schema import Redaction
from tests.console.running import console
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

AT = "2026-01-01T00:00:00+00:00"
CARD = "4111 1111 1111 1111"
MAIL = "ann@example.com"


def growing(*deltas: str) -> GrowingText:
    """Return a text of these deltas."""
    text = GrowingText()
    for number, delta in enumerate(deltas):
        text.add([StoredFragment(Arrival.at(1, number, 0), number, delta)])
    return text


@pytest.mark.parametrize("after", range(SHOWN - len(CARD), SHOWN + 1))
def test_no_digit_of_a_card_stands_where_the_end_begins(after: int) -> None:
    """A page of what happens now shows the newest words; the first of them may be half a card."""
    policy = TextPolicy(Redactor.of(Redaction()))
    shown = policy.end_of(growing("x" * 1000, CARD + "y" * after), SHOWN)
    assert shown is not None
    assert "1" not in shown
    assert len(shown) > SHOWN - 300


def test_a_whole_text_is_shown_whole() -> None:
    """Joined halves of a pair are one character: a text with them is no shorter than it should be."""
    policy = TextPolicy(Redactor.of(Redaction()))
    assert policy.end_of(growing("I \ud83d", "\ude00 can't"), SHOWN) == "I \U0001f600 can't"


async def test_a_page_has_no_half_of_a_mail_address(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Texts, explanations, reasons and names of rates are redacted as in alerts, also where they are cut."""
    file = tmp_path / "alerts.toml"
    file.write_text("")
    text, explanation = ("x" * (length - 9) + " " + MAIL for length in (LONGEST_TEXT, LONGEST))
    values = {"id": "a_1", "severity": "warning", "raised_at": AT, "response_id": "resp_1"}
    rate: dict[str, Any] = {"by": "tenant", "name": MAIL, "since": AT, "until": AT, "baseline_since": AT}
    rate |= dict.fromkeys(("responses", "refused", "baseline_responses", "baseline_refused"), 1)
    alert = {**values, "type": "deltaloom.refusal.finished", "text": text, "reason": MAIL}
    spike = {
        **values,
        "id": "a_2",
        "type": "deltaloom.refusal.spike",
        "text": "",
        "rate": {**rate, "score": 9.0},
    }
    for each in (alert | {"provider_explanation": explanation}, spike):
        await redis.xadd(f"{prefix}:alerts", {"__data__": json.dumps(each), "response_id": "resp_1"})
    letter: dict[Any, Any] = {"reason": "oversized", "error": "x", "stream": "s", "entry_id": "1-0"}
    letter |= {"deliveries": "1", "failed_at": AT}
    entry = json.dumps({"response_id": "resp_1", "event": "x" * 3963 + " " + MAIL})
    await redis.xadd(f"{prefix}:dead-letters", {**letter, "entry": entry})
    async with console(
        redis_url=redis_url, prefix=prefix, alerts_file=loaded(file, needs_secrets=False)
    ) as client:
        for path in ("api/alerts", "api/responses/resp_1", "api/health"):
            answer = json.dumps(await client.json(path))
            assert "xxx" in answer
            assert "ann" not in answer
        async with client.watching() as page:
            await page.until(lambda page: "resp_1" in page.rows)
            await wait_until(lambda: client.app.live.responses.spikes)
            async with client.watching("api/now?status=open") as other:
                (spike,) = (await other.next())["chart"]["spikes"]
        assert spike["name"] == "[mail]"
