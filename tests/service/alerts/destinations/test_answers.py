"""Test how a receiver's answer becomes one line for the log."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from service.alerts.destinations.answers import MAX_ANSWER, line

TEXT = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=40, max_size=200).filter(
    lambda text: sum(map(str.isalnum, text)) >= 40
)


@given(st.binary(max_size=2000) | st.text(max_size=2000))
@example("\u2028\x1b[31m\r\nx")
def test_any_answer_becomes_one_line(answered: bytes | str) -> None:
    """Remove line breaks and control characters. Otherwise a receiver could forge log lines."""
    answer = line(answered)
    assert len(answer) <= MAX_ANSWER
    assert answer.isprintable()


@given(st.text(max_size=50), st.text(min_size=4, max_size=60), st.text(max_size=50))
def test_no_secret_is_in_it(before: str, secret: str, after: str) -> None:
    """Remove secrets, such as a webhook's URL."""
    written = line(f"{before}{secret}{after}", [secret])
    assert secret not in written or secret in f"{before}…{after}"


@given(st.text(max_size=30), TEXT, st.integers(0, 8), st.booleans())
def test_no_quotation_of_a_text_is_in_it(before: str, text: str, start: int, escaped: bool) -> None:  # noqa: FBT001 - drawn
    """Drop an answer that quotes the text, since texts must not be logged."""
    answered = json.dumps({"error": before, "text": text[start:]}) if escaped else before + text[start:]
    assert line(answered, texts=[text]) == "(the answer repeats the text, and is left out)"


def test_an_ordinary_answer_is_kept() -> None:
    """Keep an ordinary answer, which explains a rejection."""
    assert line(b"invalid_payload", ["/", "no"], ["no", "I'm sorry, no.", ""]) == "invalid_payload"
