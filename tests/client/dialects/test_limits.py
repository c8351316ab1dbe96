"""Test the limits of the translators: a value beyond one costs only itself, and is counted."""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.dialects import Translator, framing, json_values, translator, writing
from deltaloom.dialects.content_encoding import Compressed
from deltaloom.dialects.errors import BodyError
from tests.client.dialects.reading import reading_of
from tests.client.dialects.streams import Object, candidate, chunk, converse, frame, frames, json_lines, sse

if TYPE_CHECKING:
    from collections.abc import Sequence


def translated(body: bytes, dialect: str = "openai.chat") -> tuple[Any, dict[str, int]]:
    """Return the reading of a body that comes in small pieces, and what was left out."""
    found = Translator(dialect)
    events = [event for start in range(0, len(body), 50) for event in found.feed(body[start : start + 50])]
    return reading_of(events + found.end()), dict(found.left_out)


STOP = chunk({"content": "b"}, finish="stop")
LONG = chunk({"content": "x" * 400})


@pytest.mark.parametrize(
    "body",
    [
        sse([LONG, STOP]),
        b"data: {\n" + b"data: 1,\n" * 400 + b"\n" + sse([STOP]),
        b"data:\n" * 400 + b"\n" + sse([STOP]),
        b"x" * 400 + b"\n\n" + sse([STOP]),
        json_lines([LONG, STOP]),
    ],
    ids=["line", "lines", "empty lines", "no event", "object"],
)
def test_a_long_message_is_left_out(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """Leave out a message beyond the limit, and read the next one."""
    monkeypatch.setattr(framing, "MESSAGE_BYTES", 300)
    found, left_out = translated(body)
    assert found.texts == [("output_text", "b")]
    assert sum(times for what, times in left_out.items() if "8 MiB" in what) >= 1


def test_a_message_that_breaks_off() -> None:
    """Count an object and a frame without their ends."""
    _, left_out = translated(json_lines([STOP]) + b'{"choices": [{"delta": {"content": "\\')
    assert left_out == {"message that breaks off": 1}
    _, left_out = translated(frames(converse({"text": "b"})) + b"\0\0\0", "bedrock.converse")
    assert left_out == {"frame that breaks off": 1}


def test_a_long_body_ends_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the response at the limit of the body."""
    monkeypatch.setattr(translator, "BODY_BYTES", 500)
    found, _ = translated(sse([LONG, STOP]))
    assert (found.status, found.details["reason"]) == ("failed", "body_unreadable")


@pytest.mark.parametrize(
    ("dialect", "messages", "what"),
    [
        ("openai.chat", [chunk({"content": "x"}, "stop", index=n) for n in range(200)], "choice"),
        ("gemini.generate_content", [{"candidates": [{"index": n}]} for n in range(200)], "candidate"),
    ],
)
def test_too_many_answers(dialect: str, messages: Sequence[Object], what: str) -> None:
    """Count the answers beyond the limit."""
    _, left_out = translated(sse(messages), dialect)
    assert left_out == {f"{what} beyond the limit of 128": 72}


def test_too_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the parts beyond the limit, redacted ones too."""
    monkeypatch.setattr(writing, "PARTS_LIMIT", 3)
    withheld: Object = {"reasoningContent": {"redactedContent": "x"}}
    body = frames(converse(*({"text": "x"} for _ in range(5)), withheld))
    found, left_out = translated(body, "bedrock.converse")
    assert len(found.texts) == 3
    assert left_out == {"part beyond the limit of 3": 3}


def test_too_many_kinds_of_things_left_out() -> None:
    """Keep at most 200 phrases."""
    events = [{"type": f"odd_{n}"} for n in range(300)]
    _, left_out = translated(sse(events), "anthropic.messages")
    assert len(left_out) == 200


def test_halves_of_a_surrogate_pair_in_a_long_text() -> None:
    """Join the halves before the checksum; a lone half counts as U+FFFD."""
    deltas = ["x" * 1_048_575 + "\ud83d", "\ude00\ud83d"]
    found = Translator("openai.chat")
    events = found.feed(sse([chunk({"content": delta}) for delta in deltas] + [chunk(finish="stop")]))
    (done,) = [event for event in events + found.end() if event["type"] == "response.output_text.done"]
    assert done["text_bytes"] == 1_048_575 + len("😀\ufffd".encode())


def test_a_long_whole_text() -> None:
    """Divide a long text of an answer that was not streamed."""
    answer = {"model": "m", "message": {"content": "x" * 70_000}, "done": True}
    found = Translator()
    events = found.feed(json.dumps(answer).encode()) + found.end()
    assert [len(event["delta"]) for event in events if "delta" in event] == [65_536, 4_464]
    whole = {
        "type": "message",
        "content": [{"type": "text", "text": "x" * 70_000}],
        "stop_reason": "end_turn",
    }
    found = Translator()
    events = found.feed(json.dumps(whole).encode()) + found.end()
    assert reading_of(events).closed == [("output_text", "x" * 70_000)]


def test_headers_of_frames_of_every_type() -> None:
    """Skip the headers that are no strings."""
    good = frame("messageStop", {"stopReason": "end_turn"})
    assert framing.headers_of(b"\x01a\x00\x01b\x04\0\0\0\x01\x01c\x06\0\x01x\x01d\x07\0\x01y") == {"d": "y"}
    assert framing.headers_of(b"\x01a\x0a") == framing.headers_of(b"\x09a") == {}
    found, _ = translated(good, "bedrock.converse")
    assert found.status == "completed"


def test_an_exception_without_a_payload() -> None:
    """Take the message of an exception from its header."""
    body = bytearray(frame("x", {}, ":error-code"))
    found, _ = translated(bytes(body), "bedrock.converse")
    assert (found.status, found.details["reason"]) == ("failed", "x")
    found, _ = translated(frame("throttling", {}, ":exception-type"), "bedrock.agents")
    assert found.details["reason"] == "throttling"
    found, _ = translated(frame("throttling", {}, ":exception-type"), "bedrock.invoke_model")
    assert found.details["reason"] == "throttling"
    found, _ = translated(json_lines([{"throttlingException": {"message": "x"}}]), "bedrock.converse")
    assert found.details["reason"] == "throttlingException"
    found, _ = translated(json_lines([{"error": {"code": "x"}}]), "bedrock.converse")
    assert found.details["reason"] == "x"


def test_chunks_that_are_no_base64() -> None:
    """Count a chunk that cannot be decoded."""
    for dialect in ("bedrock.agents", "bedrock.invoke_model"):
        _, left_out = translated(json_lines([{"bytes": "é"}]), dialect)
        assert left_out == {"chunk that is not Base64": 1}


def test_a_client_that_leaves_an_agent() -> None:
    """End as cancelled: an agent's stream has no end of its own."""
    found = Translator("bedrock.agents")
    found.feed(json_lines([{"bytes": "WWVz"}]))
    assert reading_of(found.end("cancelled")).status == "cancelled"


def test_white_space_and_byte_order_marks() -> None:
    """Find the framing behind them."""
    for body in (b"\xef\xbb\xbf" + sse([STOP]), b" \n\n" + json_lines([STOP]), b"\n" * 2000 + sse([STOP])):
        found, left_out = translated(body)
        assert (found.texts, left_out) == ([("output_text", "b")], {})


def test_indexes() -> None:
    """Read whole numbers from 0 to 2^31 - 1, however they are written; others have a place of their own."""
    last = 2**31 - 1
    values: list[tuple[Any, int]] = [
        *((3, 3), (3.0, 3), ("3", 3), (-1, last), (2**31, last), ("9" * 5000, last), (float("nan"), 0)),
        *((True, 0), ("x", 0), ("²", 0), ([], 0), (None, 0)),
    ]
    assert [json_values.index_at({"n": given}, "n") for given, _ in values] == [n for _, n in values]


def test_messages_of_several_dialects_are_counted() -> None:
    """Count events that a dialect does not have, and messages that are no objects."""
    _, left_out = translated(b"data: 1\n\n" + sse([STOP]))
    assert left_out == {"message that is no object": 1}
    for dialect in ("bedrock.converse", "gemini.interactions", "openai.responses", "anthropic.messages"):
        _, left_out = translated(b'data: {"type": "odd"}\n\n', dialect)
        assert len(left_out) == 1
    _, left_out = translated(
        sse([{"type": "content_block_odd"}, {"type": "message_start"}, {"type": "message_start"}]),
        "anthropic.messages",
    )
    assert set(left_out) == {"event 'content_block_odd'", "second message_start"}


def test_done_in_dialects_that_do_not_have_it() -> None:
    """Ignore `[DONE]` where it means nothing."""
    for dialect in ("anthropic.messages", "bedrock.converse", "bedrock.agents", "bedrock.invoke_model"):
        translated(b"data: [DONE]\n\n", dialect)
    for dialect in ("cohere.chat", "ollama.chat", "gemini.generate_content", "openai.responses"):
        translated(b"data: [DONE]\n\n", dialect)
    found, _ = translated(
        sse([candidate({"text": "b"}, finish="STOP")], done=True), "gemini.generate_content"
    )
    assert found.status == "completed"


def test_whole_errors() -> None:
    """Read errors that are the whole body, with status 200 or an HTTP error."""
    found, _ = translated(b'{"message": "invalid model"}', "cohere.chat")
    assert (found.status, found.details["message"]) == ("failed", "invalid model")
    found, _ = translated(b'{"error": {"code": "overloaded"}}', "openai.responses")
    assert found.details["reason"] == "overloaded"
    unknown = Translator()
    events = unknown.feed(b'{"error": {"code": "overloaded"}}') + unknown.end()
    assert reading_of(events).details["reason"] == "overloaded"
    http = Translator(status=422, path="/v2/chat")
    events = http.feed(b'[{"detail": "no"}]') + http.end()
    assert reading_of(events).details["message"] == "no"


def test_a_client_that_leaves_before_anything_came() -> None:
    """End as cancelled even if no byte came."""
    assert reading_of(Translator().end("cancelled")).status == "cancelled"
    assert reading_of(Translator().end()).details["reason"] == "stream_interrupted"


def test_an_error_event_without_an_error() -> None:
    """Believe the name of the event if its data do not say that they are an error."""
    body = (
        sse([chunk({"content": "b"})]) + b'event: error\ndata: {"code": "server_error"}\n\ndata: [DONE]\n\n'
    )
    found, _ = translated(body)
    assert (found.status, found.details["reason"]) == ("failed", "server_error")


def test_many_long_texts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep few bytes of all open texts together; the texts beyond are closed with their checksums."""
    monkeypatch.setattr(writing, "KEPT_BYTES", 250)
    deltas = [chunk({"content": "x" * 50}, index=index) for _ in range(2) for index in range(5)]
    ends = [chunk(finish="stop", index=index) for index in range(5)]
    found = Translator("openai.chat")
    events = found.feed(sse([*deltas, *ends])) + found.end()
    dones = [event for event in events if event["type"] == "response.output_text.done"]
    assert [event.get("text_bytes") or len(event["text"]) for event in dones] == [100] * 5
    assert 0 < sum("text" in event for event in dones) < 5
    digest = sha256(b"x" * 100).hexdigest()
    assert {event.get("text_sha256", digest) for event in dones} == {digest}


def test_many_categories() -> None:
    """Keep 64 categories of a block."""
    filters = [{f"c{n}_{m}": {"filtered": True} for m in range(50)} for n in range(5)]
    chunks = [chunk({"content": "x"}, content_filter_results=each) for each in filters]
    found, _ = translated(sse([*chunks, chunk(finish="content_filter")]))
    assert found.details["provider_category"].count("c") <= 64
    ratings = [{"category": f"C{n}", "blocked": True} for n in range(100)]
    found, _ = translated(sse([candidate(finish="SAFETY", safetyRatings=ratings)]), "gemini.generate_content")
    assert found.details["provider_category"].count("C") <= 64


def test_frames_inside_frames() -> None:
    """Open one level of InvokeModel's frames, not what pretends to be another one."""
    inner = json.dumps({"bytes": b64encode(b'{"outputText": "deep"}').decode()}).encode()
    found, _ = translated(json_lines([{"bytes": b64encode(inner).decode()}]), "bedrock.invoke_model")
    assert found.texts == []


def read_pieces(pieces: Sequence[bytes], dialect: str, encoding: str = "") -> Any:
    """Return the reading of a body in pieces."""
    found = Translator(dialect, content_encoding=encoding)
    return reading_of([event for piece in pieces for event in found.feed(piece)] + found.end())


def test_frames_before_a_damaged_one_are_read() -> None:
    """Read the good frames, whether the damaged one comes with them or later."""
    good = frames(converse({"text": "b"})[:2])
    for pieces in ([good + b"\0" * 12], [good, b"\0" * 12], [good[:7], good[7:] + b"\0" * 12]):
        found = read_pieces(pieces, "bedrock.converse")
        assert found.texts == [("output_text", "b")]
        assert (found.status, found.details["reason"]) == ("failed", "body_unreadable")


def test_a_damaged_frame_after_the_stop_reason() -> None:
    """Believe the provider's end, though what follows it cannot be read."""
    found = read_pieces([frames(converse({"text": "b"})[:-1]) + b"\0" * 12], "bedrock.converse")
    assert (found.closed, found.status) == ([("output_text", "b")], "completed")


@pytest.mark.parametrize("reason", ["interrupted", "cancelled"])
def test_an_agent_whose_stream_breaks_has_not_completed(reason: Any) -> None:
    """End as failed or cancelled: only the end of the body is an agent's own end."""
    found = Translator("bedrock.agents")
    events = found.feed(json_lines([{"bytes": "WWVz"}])) + found.end(reason)
    reading = reading_of(events)
    assert (reading.texts, reading.closed) == ([("output_text", "Yes")], [])
    assert reading.status == {"interrupted": "failed", "cancelled": "cancelled"}[reason]
    assert read_pieces([frame("chunk", {"bytes": "WWVz"}) + b"\0" * 12], "bedrock.agents").status == "failed"


@pytest.mark.parametrize("size", [1, 100, 10_000])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_data_before_a_mistake_are_read(encoding: str, size: int) -> None:
    """Read what precedes a mistake in compressed data, however they are divided."""
    body = sse([chunk({"content": str(n)}) for n in range(2000)])
    damaged = bytearray((gzip.compress if encoding == "gzip" else zlib.compress)(body))
    damaged[-6 if encoding == "gzip" else -2] ^= 1  # the checksum
    pieces = [bytes(damaged[start : start + size]) for start in range(0, len(damaged), size)]
    found, whole = (read_pieces(each, "openai.chat", encoding) for each in (pieces, [bytes(damaged)]))
    assert (found.status, found.details["reason"]) == ("failed", "body_unreadable")
    assert found.texts == whole.texts
    assert found.texts == [("output_text", "".join(map(str, range(2000))))]


@given(st.sampled_from(["gzip", "deflate"]), st.integers(0, 9_999), st.integers(0, 7))
def test_a_mistake_anywhere_costs_only_what_follows_it(encoding: str, place: int, bit: int) -> None:
    """Give the same pieces before a mistake, whether the data come whole or byte by byte."""
    body = b"".join(f"{n} is not {n * n}\n".encode() for n in range(99))
    damaged = bytearray((gzip.compress if encoding == "gzip" else zlib.compress)(body))
    damaged[place % len(damaged)] ^= 1 << bit
    data = bytes(damaged)

    def decoded(pieces: Sequence[bytes]) -> bytes:
        decoder, found = Compressed(encoding), bytearray()
        with suppress(BodyError):
            for piece in pieces:
                for decompressed in decoder.feed(piece):
                    found.extend(decompressed)
        return bytes(found)

    assert decoded([data]) == decoded([data[n : n + 1] for n in range(len(data))])


def test_bytes_after_the_end_of_gzip() -> None:
    """Ignore padding after a member, as gzip does; Gemini's stream ends with its body."""
    body = sse([candidate({"text": "b"}, finish="STOP")])
    for padding in (b"\0", b"\0\0\0", b"\x1f", b"\x1fx", b"x" * 100):
        data = gzip.compress(body) + padding
        for pieces in ([data], [data[n : n + 1] for n in range(len(data))]):
            found = read_pieces(pieces, "gemini.generate_content", "gzip")
            assert (found.texts, found.status) == ([("output_text", "b")], "completed")
