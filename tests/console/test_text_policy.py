"""Test that words are redacted before they are cut: no pattern finds half of what it looks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from console import response_parts
from console.console_command import loaded
from console.growing_text import GrowingText
from console.live_views import SHOWN
from console.short_fields import LONGEST, LONGEST_TEXT
from console.text_policy import TextPolicy
from deltaloom.messages import AssembledText
from handlers.core.assembly import StoredFragment
from handlers.core.identity import Arrival, PartKey, StreamKey
from service.alerts.deciding.privacy import Redactor
from service.alerts.deciding.schema import Redaction
from tests.console.running import console
from tests.strategies import log_of
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


def test_parts_have_no_half_of_a_card_where_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page shows the beginning of a finished text, and the end of an open one, both redacted before."""
    monkeypatch.setattr(response_parts, "MAX_CHARACTERS", 100)
    policy, part = TextPolicy(Redactor.of(Redaction())), PartKey(StreamKey("response", "r"), 0, 0, "refusal")
    values: dict[str, Any] = {"id": "t", "kind": "refusal", "status": "completed", "integrity": "verified"}
    values |= {"output_index": 0, "content_index": 0}
    counts = {"delta_count": 1, "duplicate_count": 0, "started_at": AT, "finished_at": AT}
    text = "x" * 91 + CARD
    finished = AssembledText.model_validate_json(json.dumps({**values, **counts, "text": text}))
    shown = response_parts.finished_part(finished, policy, set())["text"]
    assert (shown[:91], len(shown) <= 100, "4" in shown) == ("x" * 91, True, False)
    log = log_of([StoredFragment(Arrival.at(1, 0, 0), 0, CARD + "y" * 92)])
    shown = response_parts.open_part(part, log, policy)["text"]
    assert (shown[-92:], len(shown) <= 100, "1" in shown) == ("y" * 92, True, False)


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
