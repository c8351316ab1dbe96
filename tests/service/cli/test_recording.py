"""Test how a recording of several responses is divided and translated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.dialects import Translator
from service.cli.recording import Recording
from tests.client.dialects.streams import SAMPLES, body_of, json_lines, sse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.client.dialects.streams import Sample

Events = list[dict[str, Any]]

UNDIVIDED = {"bedrock.converse", "bedrock.agents", "bedrock.invoke_model", "openai.responses"}
DIVIDED = {
    name: sample
    for name, sample in SAMPLES.items()
    if sample.dialect not in UNDIVIDED
    and (sample.dialect != "gemini.interactions" or "interaction.created" in json.dumps(sample.messages[0]))
}
"""Streams that can stand one after the other: not frames, and none that begin in the middle."""


def translated(
    pieces: Sequence[bytes], dialect: str, *, only_one: bool = False
) -> tuple[Recording, list[Events]]:
    """Return a recording that was read in these pieces, and the events of each of its responses."""
    numbers = iter(range(100))
    recording = Recording(lambda: Translator(dialect, response_id=f"r{next(numbers)}"), only_one=only_one)
    responses: dict[str, Events] = {}
    for piece in pieces:
        for translator, events in recording.feed(piece):
            responses.setdefault(translator.response_id, []).extend(events)
    for translator, events in recording.end():
        responses.setdefault(translator.response_id, []).extend(events)
    return recording, list(responses.values())


def alone(sample: Sample, response_id: str = "r0") -> Events:
    """Return the events of a sample that is translated without a recording around it."""
    translator = Translator(sample.dialect, response_id=response_id)
    return translator.feed(body_of(sample)) + translator.end()


def renamed(sample: Sample) -> Sample:
    """Return the sample with other ids, as the next response of a provider has them."""
    written = json.dumps(sample.messages).replace('"g1"', '"g2"').replace('"v1"', '"v2"')
    messages = json.loads(written)
    for each in messages:
        if "choices" in each and "id" in each:
            each["id"] = "other"
        if "candidates" in each or "promptFeedback" in each:
            each["responseId"] = "g2"
    return sample._replace(messages=messages)


@pytest.mark.parametrize("name", SAMPLES)
def test_one_response_is_translated_as_without_a_recording(name: str) -> None:
    """Give the same events as the translator alone, also for binary frames."""
    sample = SAMPLES[name]
    assert translated([body_of(sample)], sample.dialect)[1] == [alone(sample)]


@pytest.mark.parametrize("name", DIVIDED)
def test_two_responses_in_a_row_are_two(name: str) -> None:
    """Give each response a translator and an id of its own."""
    sample = DIVIDED[name]
    body = body_of(sample) + body_of(renamed(sample))
    _, responses = translated([body], sample.dialect)
    ends = [[event["type"] for event in events][-1] for events in responses]
    assert len(responses) == 2, ends
    for number, events in enumerate(responses):
        assert texts_of(events) == texts_of(alone(sample, f"r{number}"))
    assert ends == [alone(sample)[-1]["type"]] * 2


def texts_of(events: Events) -> list[str]:
    """Return the deltas and texts of events."""
    return [event.get("delta") or event.get("refusal") or event.get("text") or "" for event in events]


@given(st.data())
def test_any_division_gives_the_same(data: st.DataObject) -> None:
    """Give the same events however the bytes are read."""
    sample = SAMPLES["chat refusal"]
    body = body_of(sample) * 3
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert translated(pieces, sample.dialect)[1] == translated([body], sample.dialect)[1]
    assert len(translated(pieces, sample.dialect)[1]) == 3


def test_with_a_given_id_the_first_counts() -> None:
    """Leave out all responses after the first, which alone may have the id, and say so."""
    sample = SAMPLES["chat refusal"]
    recording, responses = translated([body_of(sample) * 3], sample.dialect, only_one=True)
    assert responses == [alone(sample)]
    assert recording.is_cut


def test_what_begins_no_response_stays_with_the_one_before() -> None:
    """Make no response of late figures, of pings or of errors after the end."""
    sample = SAMPLES["chat refusal"]
    figures = {"id": "chatcmpl-9", "choices": [], "usage": {"total_tokens": 1}}
    recording, responses = translated([body_of(sample) + sse([figures, {"type": "ping"}])], sample.dialect)
    assert responses == [alone(sample)]
    assert recording.left_out == {"message after the end": 2}
    assert recording.dialects == ["openai.chat"]


def test_a_chunk_with_another_id_before_the_end_is_no_beginning() -> None:
    """Keep a response together whose gateway changes the id with every chunk."""
    sample = SAMPLES["chat refusal"]
    messages = [each | {"id": f"gen-{number}"} for number, each in enumerate(sample.messages)]
    _, responses = translated([json_lines(messages)], sample.dialect)
    assert texts_of(responses[0]) == texts_of(alone(sample))
    assert len(responses) == 1


def test_last_message_without_its_end_is_read() -> None:
    """Read the last message of a recording that stops without the empty line after it."""
    sample = SAMPLES["chat refusal"]
    assert translated([sse(sample.messages).rstrip(b"\n")], sample.dialect)[1] == [alone(sample)]


def test_what_was_left_out_before_is_added_up() -> None:
    """Count what was left out of all responses together, and what was no message at all."""
    sample = SAMPLES["chat refusal"]
    figures = sse([{"id": "chatcmpl-9", "choices": [], "usage": {"total_tokens": 1}}])
    noise = b"data: nonsense\n\n"
    one = sse(sample.messages, done=True) + figures + noise
    recording, responses = translated([one * 2], sample.dialect)
    assert len(responses) == 2
    assert recording.left_out == {"message after the end": 2, "message that is not JSON": 2}


def test_damaged_message_is_counted_for_its_response() -> None:
    """Count a message that breaks off, so that the texts of its response do not pass as complete."""
    sample = SAMPLES["chat refusal"]
    damaged = json_lines(sample.messages[:1]) + b'{"id": "g1", "choi'
    recording, responses = translated([damaged], sample.dialect)
    assert len(responses) == 1
    assert recording.left_out == {"message that breaks off": 1}
