"""Test that the comparison of taps, clients and copies finds each kind of violation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chaos.tap_traffic import Answer, TapLife
from chaos.taps import Copies, wrong_books, wrong_texts
from deltaloom.dialects import Translator

ANSWERS = [
    next(each for n in range(100) if not (each := Answer("seed", n * 2 + odd)).is_broken) for odd in (0, 1)
]
"""Two whole answers."""


def entries(*answers: Answer, left_out: int = 0) -> list[dict[bytes, bytes]]:
    """Return the copies of answers, each as one entry, without the first events."""
    found = []
    for answer in answers:
        translator = Translator(path="/v1/chat/completions", response_id="r")
        events = translator.feed(answer.body) + translator.end()
        named = {b"response_id": b"r%d" % answer.number, b"reference": b"%d" % answer.number}
        found.append({b"event": json.dumps(events[left_out:]).encode(), **named})
    return found


def life_of(*answers: Answer, **changed: Any) -> TapLife:
    """Return a tap that passed these answers on, and whose books say so."""
    size = sum(len(answer.body) for answer in answers)
    seen = sum(answer.event_count for answer in answers)
    dropped: dict[str, int] = changed.pop("dropped", {})
    books: dict[str, Any] = {
        **dict.fromkeys(("bytes_from_upstreams", "bytes_to_clients", "bytes_copied"), size),
        "bytes_sent_to_copier": size,
        "bytes_undelivered": 0,
        "bytes_dropped": {},
        "bytes_lost_with_copier": 0,
        "copier_restarts": 0,
    }
    copier = {"seen": seen, "published": seen - sum(dropped.values()), "merged": 0, "taken_bytes": size}
    books |= {"copier": copier | {"dropped": dropped}} | changed
    return TapLife("tap0.0", answers=list(answers), received=size, books=books)


def texts_of(answer: Answer, **changed: str) -> list[dict[str, str]]:
    """Return the verified texts of an answer."""
    kinds = {"reasoning_content": "reasoning", "refusal": "refusal", "content": "output_text"}
    return [
        {"integrity": "verified", "kind": kinds[name], "text": text} | changed
        for name, text in answer.texts.items()
    ]


def test_exact_copies_are_no_violation() -> None:
    """Accept whole copies, losses as the books have them, and copies of a tap that was killed."""
    first, second = ANSWERS
    copies = Copies(entries(first, second))
    assert copies.found == []
    assert list(wrong_books(life_of(first, second), copies)) == []
    assert list(wrong_texts([life_of(first, second)], texts_of(first) + texts_of(second))) == []
    short = Copies(entries(first, left_out=1))
    assert list(wrong_books(life_of(first, dropped={"over_budget": 1}), short)) == []
    assert list(wrong_books(life_of(first, dropped={"unconfirmed": 2}), short)) == []
    assert list(wrong_texts([life_of(first, dropped={"over_budget": 1})], [])) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dropped": {"over_budget": 2}}, "1 events are missing, {'over_budget': 2} were counted"),
        ({}, "1 events are missing, {} were counted"),
        ({"bytes_to_clients": 1}, "bytes to clients do not add up"),
        ({"bytes_from_upstreams": 1}, "bytes of answers do not add up"),
        ({"bytes_undelivered": 1}, "bytes that were delivered do not add up"),
        ({"bytes_dropped": {"buffer_full": 1}}, "bytes copied do not add up"),
        ({"bytes_lost_with_copier": 1}, "bytes taken do not add up"),
        ({"copier": {"seen": 1}}, "events do not add up"),
    ],
)
def test_wrong_books_are_found(changed: dict[str, Any], message: str) -> None:
    """Find books that do not add up, and losses that they do not have."""
    copies = Copies(entries(ANSWERS[0], left_out=1))
    assert any(message in line for line in wrong_books(life_of(ANSWERS[0], **changed), copies))


def test_books_must_be_there() -> None:
    """Find a tap that was stopped and wrote no books."""
    assert list(wrong_books(TapLife("tap0.0"), Copies([]))) == ["tap0.0: ended without its books"]


def test_doubled_and_mixed_copies_are_found() -> None:
    """Find a delta that came twice under two numbers, an answer with two copies, and words of another one."""
    first, second = ANSWERS
    (whole,), (other,) = entries(first), entries(second)
    again = [
        event | {"sequence_number": 1000 + number}
        for number, event in enumerate(json.loads(whole[b"event"]))
        if "delta" in event
    ]
    doubled = Copies([whole, whole | {b"event": json.dumps(again).encode()}])
    assert [line.split(":")[1][:7] for line in doubled.found] == [" deltas"]
    assert Copies([whole, whole]).found == []
    assert "copied twice" in Copies([whole, whole | {b"response_id": b"another"}]).found[0]
    assert "has words of the answers" in Copies([whole, other | {b"response_id": b"r0"}]).found[0]


def test_texts_must_be_those_of_the_upstream() -> None:
    """Find a verified text that differs, and one that is missing without a loss."""
    first = ANSWERS[0]
    life, texts = life_of(first), texts_of(first)
    assert "is not what the client got" in next(
        wrong_texts([life], texts_of(first, text=texts[0]["text"] + "x"))
    )
    assert "not all of its texts are verified" in next(wrong_texts([life], texts[1:]))


@pytest.mark.slow
def test_a_short_run_has_no_violations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the whole program for a few seconds."""
    from chaos import taps  # noqa: PLC0415 - it needs a server's program

    monkeypatch.setattr("sys.argv", ["taps", "--minutes", "0.1", "--clients", "4", "--seed", "short"])
    assert taps.main() == 0, capsys.readouterr().out
