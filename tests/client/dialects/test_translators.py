"""Test the translators: texts, ends and reasons of each dialect, however the bytes are divided."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.dialects import DIALECTS, Event, Translator, dialect_named
from tests.client.dialects import fuzz
from tests.client.dialects.reading import ENDS, reading_of
from tests.client.dialects.streams import (
    HTTP_ERRORS,
    SAMPLES,
    WHOLE_ANSWERS,
    block,
    body_of,
    chunk,
    frame,
    json_lines,
    message,
    sse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DIVISIONS = os.environ.get("DIVISIONS")
"""`all` for the many divisions of each recording; they take hours. Samples have them in a slow test."""

sampled = pytest.mark.parametrize("name", SAMPLES)


def translate(*pieces: bytes, **options: Any) -> list[Event]:
    """Return the events for a body that comes in pieces."""
    translator = Translator(response_id="r", **options)
    return [event for piece in pieces for event in translator.feed(piece)] + translator.end()


@sampled
def test_each_dialect_gives_its_texts_and_one_end(name: str) -> None:
    """Keep every text, reason and explanation of a stream, and nothing else."""
    sample = SAMPLES[name]
    events = translate(body_of(sample))
    found = reading_of(events)
    assert found.texts == list(sample.texts)
    assert (found.status, found.redacted) == (sample.status, sample.redacted)
    if sample.status == "completed":
        assert "incomplete_details" not in found.ends[0]["response"]
    else:
        expected = {
            "reason": sample.reason,
            "reason_class": sample.reason_class,
            "provider_category": sample.category,
            "provider_explanation": sample.explanation,
        }
        assert {key: found.details.get(key) for key in expected} == expected
    assert "SECRET" not in json.dumps(events)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@sampled
def test_the_dialect_is_detected(name: str) -> None:
    """Detect the dialect from the bytes, and make the id of the response."""
    translator = Translator()
    translator.feed(body_of(SAMPLES[name]))
    translator.end()
    assert translator.dialect == SAMPLES[name].dialect
    assert translator.context["response_id"].startswith("resp_")
    assert translator.context["dialect"] == SAMPLES[name].dialect
    assert not translator.left_out


@sampled
def test_divisions_in_two_give_the_same_events(name: str) -> None:
    """Divide the body at random bytes: in UTF-8, in line ends, in frames."""
    body = body_of(SAMPLES[name])
    whole = translate(body)
    cuts = range(len(body) + 1)
    for cut in random.Random(name).sample(cuts, min(len(cuts), 60)):
        assert translate(body[:cut], body[cut:]) == whole
    assert translate(*(bytes([byte]) for byte in body)) == whole


@pytest.mark.slow
@sampled
def test_each_division_in_two_gives_the_same_events(name: str) -> None:
    """Divide the body at each of its bytes."""
    body = body_of(SAMPLES[name])
    whole = translate(body)
    for cut in range(len(body) + 1):
        assert translate(body[:cut], body[cut:]) == whole


@sampled
def test_encodings_and_line_ends_give_the_same_events(name: str) -> None:
    """Read gzip, deflate with and without header, CRLF, CR, and JSON lines."""
    sample = SAMPLES[name]
    body = body_of(sample)
    whole = translate(body)
    assert translate(gzip.compress(body[:50]) + gzip.compress(body[50:]), content_encoding="gzip") == whole
    assert translate(zlib.compress(body), content_encoding="deflate") == whole
    assert translate(zlib.compress(body)[2:-4], content_encoding="deflate") == whole
    if not sample.dialect.startswith("bedrock"):
        for line_end in (b"\r\n", b"\r"):
            assert translate(sse(sample.messages, line_end, done=sample.ends_with_done)) == whole
        done = b"[DONE]\n" if sample.ends_with_done else b""
        assert translate(json_lines(sample.messages) + done) == whole


@pytest.mark.parametrize("name", WHOLE_ANSWERS)
def test_an_answer_that_was_not_streamed(name: str) -> None:
    """Give the texts of a whole answer as the provider's own."""
    dialect, answer, texts, status = WHOLE_ANSWERS[name]
    events = translate(json.dumps(answer, indent=2).encode())
    found = reading_of(events)
    assert found.texts == list(texts)
    assert found.status == status
    assert Translator(dialect).dialect == dialect


def test_an_array_of_chunks() -> None:
    """Read Gemini's answer without `alt=sse`, an array of chunks."""
    messages = SAMPLES["gemini"].messages
    assert translate(json.dumps(messages, indent=1).encode()) == translate(sse(messages))


@pytest.mark.parametrize("name", HTTP_ERRORS)
def test_a_block_before_the_stream(name: str) -> None:
    """Translate the body of an HTTP error to a failed response with the reason."""
    dialect, status, body, reason, reason_class = HTTP_ERRORS[name]
    found = reading_of(translate(json.dumps(body).encode(), dialect=dialect, status=status))
    assert found.status == "failed"
    assert (found.details["reason"], found.details.get("reason_class")) == (reason, reason_class)


def test_an_error_page() -> None:
    """Give the HTTP status as the reason if the body has none."""
    found = reading_of(translate(b"<html>Bad gateway</html>", path="/v1/messages", status=502))
    assert (found.status, found.details["reason"]) == ("failed", "502")


@sampled
@pytest.mark.parametrize("reason", ["cancelled", "interrupted"])
def test_a_part_that_is_open_at_a_break_gets_no_done(name: str, reason: Any) -> None:
    """Cut each stream before its end: the status says so, and no open text is called whole."""
    sample = SAMPLES[name]
    body = body_of(sample)
    for cut in range(0, len(body), 7):
        translator = Translator(sample.dialect)
        events = translator.feed(body[:cut])
        was_over = translator.is_over
        events += translator.end(reason)
        found = reading_of(events)
        assert len(found.ends) == 1
        assert events[-1] is found.ends[0]
        if not was_over and found.status in {"cancelled", "failed"} and sample.status == "completed":
            assert found.status == {"cancelled": "cancelled", "interrupted": "failed"}[reason]


def test_the_client_left() -> None:
    """End a response whose client left as cancelled, with its text but without a `.done`."""
    translator = Translator("openai.chat")
    events = translator.feed(sse([chunk({"refusal": "I can"})])) + translator.end("cancelled")
    found = reading_of(events)
    assert (found.texts, found.closed, found.status) == ([("refusal", "I can")], [], "cancelled")
    assert found.details["reason"] == "client_disconnected"


def test_the_stream_broke() -> None:
    """End a response whose stream broke as failed, with its text but without a `.done`."""
    found = reading_of(translate(sse(message(block(0, {"type": "text", "text": "Hi"}, [])[:1])[:3])))
    assert (found.texts, found.closed) == ([("output_text", "Hi")], [])
    assert (found.status, found.details["reason"]) == ("failed", "stream_interrupted")


def test_a_fallback_that_hides_a_refusal_is_reported_once() -> None:
    """Report that another model answered for one that refused."""
    fallback = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}, "trigger": "refusal"}
    events = translate(sse(message(block(0, fallback, []), block(1, fallback, []))))
    found = [event for event in events if event["type"] == "deltaloom.response.fallback"]
    assert [(each["from_model"], each["to_model"], each["trigger"]) for each in found] == [
        ("a", "b", "refusal")
    ]


def test_a_stream_joined_in_the_middle_keeps_its_numbers() -> None:
    """Keep the provider's numbers if the beginning was not seen, or give none."""
    kept = translate(sse(SAMPLES["responses"].messages[1:]))
    assert [event.get("sequence_number") for event in kept if "delta" in event] == [1]
    unnumbered = translate(sse(SAMPLES["anthropic"].messages[2:]))
    assert {event.get("sequence_number") for event in unnumbered} == {None}


def test_a_long_text_is_closed_with_its_checksum() -> None:
    """Send checksum and size in place of a text that is too long to be sent twice."""
    text = "é" * 700_000
    events = translate(sse([chunk({"content": text}), chunk(finish="stop")]))
    (done,) = [event for event in events if event["type"] == "response.output_text.done"]
    assert "text" not in done
    assert done["text_bytes"] == 1_400_000
    assert max(len(event.get("delta", "")) for event in events) <= 64 * 1024


def test_damaged_frames() -> None:
    """Leave out a frame whose checksum is wrong; end the response if the next one cannot be found."""
    good = body_of(SAMPLES["converse"])
    damaged = bytearray(frame("contentBlockDelta", {"delta": {"text": "x"}}))
    damaged[-6] ^= 1
    translator = Translator("bedrock.converse")
    events = translator.feed(bytes(damaged) + good) + translator.end()
    assert reading_of(events).texts == list(SAMPLES["converse"].texts)
    assert translator.left_out == {"frame that does not match its checksum": 1}
    found = reading_of(translate(b"\0\0\0\x20 nonsense, no frame", dialect="bedrock.converse"))
    assert (found.status, found.details["reason"]) == ("failed", "body_unreadable")


def test_an_exception_in_the_frames() -> None:
    """Translate an exception frame to a failed response."""
    body = frame("throttlingException", {"message": "later"}, ":exception-type")
    found = reading_of(translate(body))
    assert (found.status, found.details["reason"]) == ("failed", "throttlingException")


def test_a_body_in_another_encoding_than_its_header_says() -> None:
    """End the response instead of raising."""
    for encoding in ("gzip", "deflate", "br"):
        found = reading_of(translate(b"data: {}", content_encoding=encoding))
        assert found.details["reason"] == "body_unreadable"


def test_two_responses_in_a_row_keep_their_texts_apart() -> None:
    """Begin new parts if the id of the chunks changes after the end of a choice."""
    second = [{**each, "id": "chatcmpl-2"} for each in (chunk({"content": "b"}), chunk(finish="stop"))]
    events = translate(sse([chunk({"content": "a"}), chunk(finish="stop"), *second]))
    assert reading_of(events).closed == [("output_text", "a"), ("output_text", "b")]


def test_dialects_need_no_pydantic() -> None:
    """Import the translators where pydantic cannot be imported."""
    code = "import sys; sys.modules['pydantic'] = None; import deltaloom.dialects as d; d.Translator()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_dialect_is_named_with_the_known_ones() -> None:
    """Say which dialects there are."""
    with pytest.raises(ValueError, match=r"dialect 'x' is unknown; known are openai.responses, openai.chat"):
        dialect_named("x")


ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "type", "id"]), inner)
    ),
    max_leaves=6,
)


@given(data=st.data())
def test_odd_values_raise_nothing(data: st.DataObject) -> None:
    """Replace values anywhere in a stream: there is no error, one end, and it is the last event."""

    def mutated(value: Any) -> Any:
        if data.draw(st.integers(0, 19)) == 0:
            return data.draw(ODD)
        if isinstance(value, dict):
            return {key: mutated(each) for key, each in value.items()}
        return [mutated(each) for each in value] if isinstance(value, list) else value

    sample = SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))]
    dialect = data.draw(st.sampled_from([None, sample.dialect, *(each.name for each in DIALECTS)]))
    translator = Translator(dialect, status=data.draw(st.sampled_from([200, 200, 400])))
    body = json_lines([each for each in map(mutated, sample.messages) if isinstance(each, dict)])
    cut = data.draw(st.integers(0, len(body)))
    events = translator.feed(body[:cut]) + translator.feed(body[cut:]) + translator.end()
    ends = [event for event in events if event["type"] in ENDS]
    assert len(ends) == 1
    assert events[-1] is ends[0]
    assert translator.end() == translator.feed(b"more") == []
    json.dumps(events)


@given(st.binary(max_size=300), st.sampled_from([None, *(each.name for each in DIALECTS)]))
def test_any_bytes_raise_nothing(body: bytes, dialect: str | None) -> None:
    """Feed bytes that are no stream."""
    events = translate(body, dialect=dialect)
    assert [event["type"] in ENDS for event in events].count(True) == 1


@given(st.integers(0, 2**64), st.sampled_from([each.name for each in DIALECTS]))
def test_mutated_streams(seed: int, dialect: str) -> None:
    """Try some cases of the fuzzer."""
    fuzz.try_once(str(seed), [dialect], [])


def bodies() -> Iterator[tuple[str, bytes]]:
    """Yield the samples, and the recorded streams in the folder that RECORDED_DIALECTS names."""
    for name, sample in SAMPLES.items():
        yield name, body_of(sample)
    if folder := os.environ.get("RECORDED_DIALECTS"):
        files = sorted(path for path in Path(folder).rglob("*") if path.suffix in {".jsonl", ".sse"})
        assert files, f"RECORDED_DIALECTS={folder}: there is no *.jsonl and no *.sse"
        for file in files:
            yield file.name, file.read_bytes()


def divisions(body: bytes, name: str) -> Iterator[list[int]]:
    """Yield the places at which to divide a body: seven random ones.

    With DIVISIONS=all, yield each single place of a body below 20 kB, and 200 times many random ones of a
    longer one.
    """
    chance = random.Random(name)
    places = range(len(body) + 1)
    if DIVISIONS != "all":
        yield sorted(chance.sample(places, min(7, len(places))))
    elif len(body) < 20_000:
        yield from ([place] for place in places)
    else:
        yield from (sorted(chance.sample(places, chance.randint(2, len(places) // 4))) for _ in range(200))


def test_streams_in_several_pieces() -> None:
    """Divide streams: the events are the same, and there is one end."""
    for name, body in bodies():
        whole = translate(body)
        assert len(reading_of(whole).ends) == 1, name
        for places in divisions(body, name):
            bounds = pairwise([0, *places, len(body)])
            assert translate(*(body[start:end] for start, end in bounds)) == whole, (name, places)
