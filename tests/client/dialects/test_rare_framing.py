"""Test bodies that are divided at unusual places, damaged frames, and values that are rare in messages."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import pytest

from deltaloom.dialects import Translator
from deltaloom.dialects.agents import is_agents
from deltaloom.dialects.framing import DONE, MESSAGE_BYTES, JsonValues
from tests.client.dialects.reading import Reading, reading_of
from tests.client.dialects.streams import (
    SAMPLES,
    Object,
    body_of,
    chunk,
    frame,
    invoked,
    json_lines,
    message,
    sse,
)

CHAT = SAMPLES["chat refusal"]


def read(*pieces: bytes, **options: Any) -> tuple[Reading, dict[str, int]]:
    """Return the reading of a body, and what was left out of it."""
    translator = Translator(response_id="r", **options)
    events = [event for piece in pieces for event in translator.feed(piece)]
    events += translator.end()
    return reading_of(events), dict(translator.left_out)


def sealed(headers: bytes, payload: bytes = b"", size: int | None = None) -> bytes:
    """Return a frame of an AWS event stream with right checksums."""
    own = 12 + len(headers) + len(payload) + 4
    prelude = (own if size is None else size).to_bytes(4) + len(headers).to_bytes(4)
    body = prelude + zlib.crc32(prelude).to_bytes(4) + headers + payload
    return body + zlib.crc32(body).to_bytes(4)


def header(name: str, value: str) -> bytes:
    """Return a header of a frame, with a string."""
    return bytes([len(name)]) + name.encode() + b"\x07" + len(value).to_bytes(2) + value.encode()


def test_line_beyond_the_limit_that_comes_at_once_costs_only_itself() -> None:
    """Leave out a line of more than 8 MiB whose end is there already, and read the messages around it."""
    first, *rest = (sse([each], done=False) for each in CHAT.messages)
    long = b"data: " + b"x" * MESSAGE_BYTES + b"\n\n"
    found, left_out = read(first + long + b"".join(rest))
    assert left_out == {"message of more than 8 MiB": 1}
    assert found.texts == read(body_of(CHAT))[0].texts


class Counted:
    """A listener that records the phrases for what a framing leaves out."""

    def __init__(self) -> None:
        self.left_out: list[str] = []

    def leave_out(self, what: str) -> None:
        """Note something that is no message."""
        self.left_out.append(what)

    lose = leave_out


@pytest.mark.parametrize("cut", range(1, 6))
def test_done_between_json_objects_may_be_divided(cut: int) -> None:
    """Read `[DONE]` though it comes in two pieces, and no object from a stray brace."""
    framing, marker = JsonValues(losses := Counted()), b"[DONE]"
    pieces = (b'{"a": 1}\n}\n{"a": 2}\n' + marker[:cut], marker[cut:])
    found = [each.value for piece in pieces for each in framing.feed(piece)]
    assert found == [{"a": 1}, {"a": 2}, DONE]
    assert (framing.end(), losses.left_out) == ([], [])


@pytest.mark.parametrize("name", ["chat refusal", "ollama", "converse intervened"])
def test_bodies_may_come_byte_by_byte(name: str) -> None:
    """Find the framing behind a byte order mark that comes in pieces, and in the first byte of a frame."""
    body = body_of(SAMPLES[name])
    body = body if body[:1] == b"\0" else b"\xef\xbb\xbf" + body
    assert read(*(bytes([byte]) for byte in body)) == read(body)


@pytest.mark.parametrize("size", [0, 15, MESSAGE_BYTES * 2 + 1])
def test_frame_of_an_impossible_size_ends_the_response(size: int) -> None:
    """Fail a response whose frame gives a size at which no next frame can be found, and read no more."""
    translator = Translator(content_type="application/vnd.amazon.eventstream")
    found = reading_of(translator.feed(sealed(header(":event-type", "chunk"), size=size)))
    assert (found.status, found.details["reason"]) == ("failed", "body_unreadable")
    assert translator.feed(body_of(CHAT)) == []
    assert translator.feed_message(chunk({"content": "a"})) == []
    assert translator.end() == []


def test_error_frame_without_a_payload_has_its_message_in_a_header() -> None:
    """Fail with the code and the message of the headers."""
    headers = header(":error-code", "InternalServerError") + header(":error-message", "boom")
    found, _ = read(sealed(headers), dialect="bedrock.converse")
    assert (found.status, found.details["message"]) == ("failed", "boom")
    assert found.details["code"] == "InternalServerError"


def test_chunk_that_is_not_base64_is_lost() -> None:
    """Recognise InvokeModel by the name of the frame, and go on after a damaged chunk."""
    good = frame("chunk", {"bytes": base64.b64encode(b'{"outputText": "a"}').decode()})
    translator = Translator()
    translator.feed(frame("chunk", {"p": "abc"}) + frame("chunk", {"bytes": "%"}) + good)
    assert translator.dialect == "bedrock.invoke_model"
    translator.end()
    assert translator.left_out["chunk that is not Base64"] == 1
    assert not is_agents({"bytes": "%"})


def test_action_of_a_guardrail_shows_invoke_model() -> None:
    """Recognise InvokeModel by the guardrail's action, which is in the model's own message."""
    translator = Translator()
    translator.feed_message(chunk({"content": "a"}) | {"amazon-bedrock-guardrailAction": "INTERVENED"})
    translator.end()
    assert translator.dialect == "bedrock.invoke_model"


def test_beginning_of_a_tag_at_the_end_is_text() -> None:
    """Write the last characters of a text though they look like the beginning of a tag."""
    found, _ = read(sse([chunk({"content": "<thi"}), chunk(finish="stop")], done=True))
    assert found.closed == [("output_text", "<thi")]
    line: Object = {"model": "m", "message": {"role": "assistant", "content": "<thi"}, "done": False}
    found, _ = read(json_lines([line, {**line, "message": {"content": ""}, "done": True}]))
    assert found.closed == [("output_text", "<thi")]


def test_unknown_items_of_a_chat_are_no_text() -> None:
    """Read the text between items and reasoning details of unknown types."""
    content: list[Object] = [{"type": "image_url", "text": "x"}, {"type": "text", "text": "a"}]
    details: list[Object] = [{"type": "reasoning.new", "text": "x"}, {"type": "reasoning.text", "text": "b"}]
    delta: Object = {"content": content, "reasoning_details": details}
    found, _ = read(sse([chunk(delta), chunk(finish="stop")], done=True))
    assert sorted(found.closed) == [("output_text", "a"), ("reasoning", "b")]


def test_code_of_an_error_is_looked_for_four_errors_deep() -> None:
    """Stop at a depth that no provider reaches, and fail with what was found."""
    error: Object = {"code": "content_filter"}
    for _ in range(6):
        error = {"message": "wrapped", "innererror": error}
    found, _ = read(sse([chunk({"content": "a"}), {"error": error}], done=True))
    assert found.status == "failed"
    assert found.details["reason"] != "content_filter"


def test_answer_of_invoke_model_without_a_text_is_complete() -> None:
    """End a response that has a reason to stop and no text, without an empty part."""
    found, _ = read(
        invoked([{"outputText": "", "completionReason": "FINISH"}]), dialect="bedrock.invoke_model"
    )
    assert (found.status, found.texts) == ("completed", [])


SIGNED = [
    {"type": "content_block_delta", "index": index, "delta": {"type": "signature_delta", "signature": "x"}}
    for index in range(600)
]
REDACTED = [
    {
        "contentBlockDelta": {
            "contentBlockIndex": index,
            "delta": {"reasoningContent": {"redactedContent": "eA=="}},
        }
    }
    for index in range(600)
]
THOUGHTS: list[Object] = [
    {"event_type": "step.delta", "index": index, "delta": {"type": "thought_signature", "signature": "x"}}
    for index in range(600)
]


@pytest.mark.parametrize(
    ("dialect", "messages", "redacted", "left_out"),
    [
        ("anthropic.messages", [*(every := message())[:1], *SIGNED, *every[1:]], 0, 0),
        (
            "bedrock.converse",
            [*REDACTED, *REDACTED, {"messageStop": {"stopReason": "end_turn"}}],
            512,
            2 * 88,
        ),
        (
            "gemini.interactions",
            [
                *THOUGHTS,
                {"event_type": "step.delta", "index": 0, "delta": {"type": "image", "data": "x"}},
                {"event_type": "interaction.completed", "interaction": {"status": "completed"}},
            ],
            0,
            0,
        ),
    ],
)
def test_withheld_parts_beyond_the_limit_take_no_memory(
    dialect: str, messages: list[Object], redacted: int, left_out: int
) -> None:
    """Remember at most 512 parts whose text is withheld, and end the response as its provider does."""
    translator = Translator(dialect)
    events = [event for each in messages for event in translator.feed_message(each)]
    found = reading_of(events + translator.end())
    assert (found.status, found.redacted) == ("completed", redacted)
    assert translator.left_out.get("part beyond the limit of 512", 0) == left_out
