"""What a receiver said, as one line that may be logged."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from service.alerts.destinations.answers import AT_MOST, line

TEXT = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=40, max_size=200).filter(
    lambda text: sum(map(str.isalnum, text)) >= 40
)


@given(st.binary(max_size=2000) | st.text(max_size=2000))
@example("\u2028\x1b[31m\r\nx")
def test_any_answer_becomes_one_line(said: bytes | str) -> None:
    """A receiver could write lines of its own into the log, or colours into a terminal."""
    answer = line(said)
    assert len(answer) <= AT_MOST
    assert answer.isprintable()


@given(st.text(max_size=50), st.text(min_size=4, max_size=60), st.text(max_size=50))
def test_no_secret_is_in_it(before: str, secret: str, after: str) -> None:
    """A webhook's URL would stand in the log."""
    written = line(f"{before}{secret}{after}", [secret])
    assert secret not in written or secret in f"{before}…{after}"


@given(st.text(max_size=30), TEXT, st.integers(0, 8), st.booleans())
def test_no_quotation_of_a_text_is_in_it(before: str, text: str, start: int, escaped: bool) -> None:  # noqa: FBT001 - drawn
    """What a model said would stand in the log, since a receiver repeated the request."""
    said = json.dumps({"error": before, "text": text[start:]}) if escaped else before + text[start:]
    assert line(said, texts=[text]) == "(the answer repeats the text, and is left out)"


def test_an_answer_of_its_own_is_kept() -> None:
    """Nobody would know why a message was refused."""
    assert line(b"invalid_payload", ["/", "no"], ["no", "I'm sorry, no.", ""]) == "invalid_payload"
