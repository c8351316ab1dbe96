"""Test that the comparison of offered and arrived events finds each kind of violation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chaos.producers import Offered, events_by_response, violations, wrong_texts
from chaos.rebuilding import Remainder, wait_until_done

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["<0>", "<1>", "<2>"]


def delta(number: int, text: str) -> dict[str, Any]:
    """Return a delta."""
    return {
        "type": "response.refusal.delta",
        "sequence_number": number,
        "output_index": 0,
        "content_index": 0,
        "delta": text,
    }


def offered(folder: Path, **counters: Any) -> Offered:
    """Return three offered deltas and the counters of their producer."""
    lines = [json.dumps(["resp_1", number, delta(number, word)]) for number, word in enumerate(WORDS)]
    path = folder / "p.offered"
    path.write_text("\n".join(lines) + '\n["resp')
    counts: dict[str, Any] = {"seen": 3, "published": 3, "merged": 0, "waiting": 0}
    counts |= {"dropped": {}, "reasons": {}, "responses": {}} | counters
    path.with_suffix(".counters").write_text(json.dumps(counts))
    return Offered(path)


def found(folder: Path, *arrived: dict[str, Any], **counters: Any) -> list[str]:
    """Return the violations."""
    entries = [{b"event": json.dumps(arrived).encode(), b"response_id": b"resp_1"}]
    return list(violations(offered(folder, **counters), events_by_response(entries)))


def dropped(count: int, reason: str = "over_budget") -> dict[str, Any]:
    """Return counters with dropped events."""
    reasons = {reason: count}
    return {
        "published": 3 - count,
        "dropped": reasons,
        "reasons": reasons,
        "responses": {"resp_1": count},
    }


def test_exact_accounts_are_no_violation(tmp_path: Path) -> None:
    """Accept merged deltas, repeated entries, and losses as they were reported."""
    assert found(tmp_path, *(delta(number, word) for number, word in enumerate(WORDS))) == []
    assert found(tmp_path, delta(0, "<0><1><2>"), delta(0, "<0><1><2>"), published=1, merged=2) == []
    assert found(tmp_path, delta(0, "<0>"), **dropped(2)) == []
    assert found(tmp_path, delta(0, "<0>"), delta(1, "<1>"), **dropped(2, "unconfirmed")) == []


@pytest.mark.parametrize(
    ("arrived", "counters", "message"),
    [
        ([delta(0, "<0>")], {}, "2 events are missing"),
        ([delta(0, "<0><1>"), delta(1, "<1>"), delta(2, "<2>")], {}, "arrived twice"),
        ([delta(0, "<0><1><2><7>")], {}, "never offered"),
        ([delta(0, "<0><1><2>")], dropped(1), "0 events are missing"),
        ([delta(0, "<0><1><2>")], {"published": 2}, "do not add up"),
        ([delta(0, "<0><1><2>")], {"seen": 4, "published": 4}, "3 events were offered, 4 seen"),
        ([delta(0, "<0>")], dropped(2) | {"reasons": {}}, "reported to the owner"),
        ([delta(0, "<0>")], dropped(2) | {"responses": {"resp_1": 1}}, "1 were reported"),
    ],
)
def test_violations_are_found(
    tmp_path: Path, arrived: list[dict[str, Any]], counters: dict[str, Any], message: str
) -> None:
    """Find losses without a report, reports without a loss, and doubled words."""
    assert any(message in line for line in found(tmp_path, *arrived, **counters))


def test_verified_text_must_be_what_the_caller_got(tmp_path: Path) -> None:
    """Find a verified text that differs from the offered words."""
    events = offered(tmp_path).events
    text = {"response_id": "resp_1", "output_index": 0, "integrity": "verified", "text": "<0><1><2>"}
    assert list(wrong_texts([text, text | {"integrity": "unverified", "text": "<0>"}], events)) == []
    assert len(list(wrong_texts([text | {"text": "<0>"}], events))) == 1


async def test_worker_may_take_as_long_as_it_makes_progress() -> None:
    """Wait longer than the patience for a slow worker, and give up one that stands still."""
    slow = iter([*(Remainder(left, 1, 2, 3) for left in range(40, 0, -1)), Remainder(0, 0, 0, 4)])

    async def look() -> Remainder:
        return next(slow)

    assert await wait_until_done(look, every=0.001, patience=0.0) is None

    async def stand_still() -> Remainder:
        return Remainder(0, 0, 1, 3)

    left = await wait_until_done(stand_still, every=0.001, patience=0.01)
    assert str(left) == "0 entries are unread, 0 pending, 1 responses open; 3 texts are finished"


@pytest.mark.slow
def test_a_short_run_has_no_violations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the whole program for a few seconds."""
    from chaos import producers  # noqa: PLC0415 - it needs a server's program

    monkeypatch.setattr("sys.argv", ["producers", "--minutes", "0.1", "--producers", "2", "--seed", "short"])
    assert producers.main() == 0, capsys.readouterr().out
