"""Test the comparison of outputs with expectations: it finds each kind of error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.entries import Expected
from bench.generator import PartName
from bench.ground import Ground
from bench.peers import outputs
from bench.verdict import wrong

if TYPE_CHECKING:
    from deltaloom.messages import ResponseMessage

THOUGHT = PartName("resp_1", "reasoning", 0, 0)
REFUSED = PartName("resp_1", "refusal", 1, 0)
EXPECTED = Expected({THOUGHT: "Hm, no.", REFUSED: "I can't."}, {REFUSED})

SOUND = (
    outputs.opened("resp_1", None, 1, 0, "I"),
    outputs.finished("resp_1", None, "reasoning", 0, 0, "Hm, no."),
    outputs.finished("resp_1", None, "refusal", 1, 0, "I can't."),
)
ALERT, TEXT, REFUSAL = SOUND


@pytest.fixture
def place(redis_url: str, prefix: str) -> Ground:
    """Return the test's area of the server."""
    return Ground(redis_url, prefix, owned=False)


def found(place: Ground, *messages: ResponseMessage) -> list[str]:
    """Return the errors that are found in these messages."""
    for message in messages:
        stream = place.names.alerts if "opened" in message.id else place.names.assembled
        place.client.xadd(stream, outputs.fields(message))  # type: ignore[arg-type]  # a dict is invariant
    answer = wrong(place, EXPECTED)
    place.client.close()
    return answer


def test_correct_outputs_have_no_errors(place: Ground) -> None:
    """Find no error in correct outputs."""
    assert found(place, *SOUND) == []


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ((ALERT, TEXT), "1 lost text"),
        ((TEXT, REFUSAL), "1 lost alert"),
        ((*SOUND, TEXT), "1 doubled text"),
        ((*SOUND, ALERT), "1 doubled or false alert"),
        ((ALERT, REFUSAL, TEXT.model_copy(update={"text": "Hm,no."})), "1 wrong text"),
        ((*SOUND, TEXT.model_copy(update={"response_id": "resp_2"})), "1 text that nobody wrote"),
        ((*SOUND, ALERT.model_copy(update={"output_index": 0})), "1 doubled or false alert"),
    ],
)
def test_each_kind_of_error_is_found(place: Ground, messages: tuple[ResponseMessage, ...], what: str) -> None:
    """Find each kind of error. Otherwise a fast wrong result would win."""
    assert found(place, *messages)[0] == what
