"""Test streams that are legal but odd, and the order of precedence when a stream says two things."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from deltaloom.dialects import Translator
from deltaloom.dialects.content_encoding import Compressed
from tests.client.dialects.reading import Reading, reading_of
from tests.client.dialects.streams import (
    TEXT,
    Object,
    block,
    candidate,
    chunk,
    converse,
    frame,
    frames,
    invoked,
    json_lines,
    message,
    sse,
)


def read(body: bytes, dialect: str | None = None, **options: Any) -> Reading:
    """Return the reading of a body."""
    translator = Translator(dialect, **options)
    return reading_of(translator.feed(body) + translator.end())


def renamed(data: Object, identity: str) -> Object:
    """Return a chunk with another id."""
    return {**data, "id": identity}


def test_a_block_counts_though_the_usage_has_another_id() -> None:
    """Keep the end of a choice if each chunk has an id of its own."""
    chunks = [chunk({"content": "a"}), chunk({"content": "b"}), chunk(finish="content_filter")]
    usage: Object = {"id": "x", "object": "chat.completion.chunk", "choices": [], "usage": {}}
    body = [renamed(each, f"id-{number}") for number, each in enumerate(chunks)]
    for done in (True, False):
        found = read(sse([*body, usage], done=done))
        assert (found.status, found.details["reason"]) == ("incomplete", "content_filter")
        assert found.closed == [("output_text", "ab")]


def test_a_block_counts_though_another_response_follows() -> None:
    """Keep the gravest end of several responses in one stream."""
    first = [chunk({"content": "a"}), chunk(finish="content_filter")]
    second = [renamed(each, "other") for each in (chunk({"content": "b"}), chunk(finish="stop"))]
    found = read(sse([*first, *second], done=True))
    assert found.closed == [("output_text", "a"), ("output_text", "b")]
    assert (found.status, found.details["reason"]) == ("incomplete", "content_filter")


ERROR: Object = {"error": {"type": "server_error", "code": "server_error", "message": "boom"}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (sse([chunk({"content": "a"}, "content_filter"), ERROR]), "content_filter"),
        (sse([chunk({"content": "a"}, "content_filter", error=ERROR["error"])]), "content_filter"),
        (sse([candidate({"text": "a"}, finish="SAFETY"), ERROR]), "SAFETY"),
        (sse([{"promptFeedback": {"blockReason": "SAFETY"}}, ERROR]), "SAFETY"),
        (
            sse([*message(block(0, TEXT, []), stop="refusal")[:-1], {"type": "error", **ERROR}]),
            "refusal",
        ),
        (
            frames(converse({"text": "a"}, stop="content_filtered"))
            + frame("modelStreamErrorException", {"message": "boom"}, ":exception-type"),
            "content_filtered",
        ),
        (
            invoked([{"outputText": "a", "completionReason": "CONTENT_FILTERED"}])
            + frame("modelStreamErrorException", {"message": "boom"}, ":exception-type"),
            "CONTENT_FILTERED",
        ),
    ],
    ids=["chat", "chat choice", "gemini", "gemini prompt", "anthropic", "converse", "invoke model"],
)
def test_a_block_counts_though_an_error_follows(body: bytes, reason: str) -> None:
    """Give the block: it is why a person may have to look."""
    found = read(body)
    assert (found.status, found.details["reason"]) == ("incomplete", reason)


def test_an_error_counts_more_than_another_end() -> None:
    """Give the error after an end that does not block."""
    for finish in ("stop", "length"):
        found = read(sse([chunk({"content": "a"}, finish), ERROR]))
        assert (found.status, found.details["reason"]) == ("failed", "server_error")


def test_a_guardrail_counts_more_than_a_length() -> None:
    """Give the guardrail's block of an answer that also reached its limit, or broke off."""
    start = message(block(0, TEXT, [{"type": "text_delta", "text": "a"}]), stop="max_tokens")
    body = [*start[:-1], {**start[-1], "amazon-bedrock-guardrailAction": "INTERVENED"}]
    assert read(invoked(body)).details["reason"] == "INTERVENED"
    trace = {"guardrailTrace": {"action": "INTERVENED", "inputAssessments": [{"action": "BLOCKED"}]}}
    masked = {"guardrailTrace": {"action": "INTERVENED", "inputAssessments": [{"action": "ANONYMIZED"}]}}
    events = [{"trace": {"agentId": "A", "trace": each}} for each in (trace, masked)]
    assert read(json_lines(events)).details["reason"] == "INTERVENED"
    exception = frame("throttlingException", {"message": "later"}, ":exception-type")
    body_of_agent = frame("trace", {"agentId": "A", "trace": trace})
    assert read(body_of_agent + exception).details["reason"] == "INTERVENED"


def test_a_client_that_left_counts_more_than_a_length() -> None:
    """End as cancelled if the client left while one of several choices was open."""
    translator = Translator("openai.chat")
    events = translator.feed(sse([chunk({"content": "a"}, "length"), chunk({"content": "b"}, index=1)]))
    assert reading_of(events + translator.end("cancelled")).status == "cancelled"


def test_the_whole_reasoning_in_another_field_at_the_end() -> None:
    """Count the reasoning once, if a last chunk repeats all of it."""
    details = [{"type": "reasoning.text", "text": "Let me see."}]
    deltas: list[Object] = [{"reasoning": "Let me"}, {"reasoning": " see."}, {"reasoning_details": details}]
    found = read(sse([*map(chunk, deltas), chunk({"content": "Yes"}, "stop")]))
    assert found.closed == [("reasoning", "Let me see."), ("output_text", "Yes")]


def test_copilot_names_reasoning_in_its_own_way() -> None:
    """Read `reasoning_text`; an opaque reasoning alone is withheld."""
    opaque: Object = {"reasoning_opaque": "SECRET"}
    found = read(sse([chunk({"reasoning_text": "Hm"}), chunk(opaque), chunk({"content": "a"}, "stop")]))
    assert (found.closed, found.redacted) == ([("reasoning", "Hm"), ("output_text", "a")], 0)
    assert read(sse([chunk(opaque), chunk({"content": "a"}, "stop")])).redacted == 1


def test_a_choice_whose_delta_is_null() -> None:
    """Read the message or the text beside a `delta` of null."""
    for words in ({"message": {"content": "a"}}, {"text": "a"}):
        data: Object = {
            "object": "chat.completion",
            "choices": [{"delta": None, "finish_reason": "stop", **words}],
        }
        assert read(json.dumps(data).encode()).closed == [("output_text", "a")]


def test_a_cumulative_message_beside_the_delta() -> None:
    """Read only the delta, as Perplexity's streams have both."""
    chunks = [
        chunk({"content": "a"}, message={"content": "a"}),
        chunk({"content": "b"}, message={"content": "ab"}),
        chunk({}, "stop", message={"content": "ab"}),
    ]
    assert read(sse(chunks)).closed == [("output_text", "ab")]


def test_block_lists_of_azure() -> None:
    """Read the older list and the newer object of custom block lists."""
    for found in ([{"id": "a", "filtered": False}, {"id": "b", "filtered": True}], {"filtered": True}):
        results: Object = {
            "content_filter_results": {"custom_blocklists": found, "hate": {"filtered": False}}
        }
        assert read(sse([chunk({"content": "a"}, "stop", **results)])).details["provider_category"] == (
            "custom_blocklists"
        )


def test_indexes_that_are_strings() -> None:
    """Keep choices apart whose indexes are strings, or are no indexes."""
    for first, second in (("0", "1"), (-1, 0), (2**40, 1)):
        chunks = [chunk({"content": "a"}, index=first), chunk({"content": "b"}, index=second)]  # type: ignore[arg-type]
        assert read(sse(chunks, done=True)).closed == [("output_text", "a"), ("output_text", "b")]


def test_white_space_without_end_is_not_held() -> None:
    """Hold at most 256 characters of white space, which may precede a tag."""
    translator = Translator("openai.chat")
    events = [event for _ in range(300) for event in translator.feed(sse([chunk({"content": "\n"})]))]
    assert "".join(event["delta"] for event in events if "delta" in event) == "\n" * 300
    assert read(sse([chunk({"content": " " * 200 + "<think>Hm</think>a"}, "stop")])).texts == [
        ("reasoning", "Hm"),
        ("output_text", "a"),
    ]


def test_a_repeated_refusal_keeps_its_details() -> None:
    """Keep category and explanation, though a second event has the reason alone."""
    events = message(block(0, TEXT, []), stop="refusal", details={"category": "bio", "explanation": "No."})
    again = {"type": "message_delta", "delta": {"stop_reason": "refusal"}}
    found = read(sse([*events[:-1], again, events[-1]]))
    assert (found.details["provider_category"], found.details["provider_explanation"]) == ("bio", "No.")


@pytest.mark.parametrize(
    ("deltas", "redacted"),
    [
        ([{"signature": "SECRET"}], 1),
        ([{"text": "Hm"}, {"signature": "SECRET"}], 0),
        ([{"redactedContent": "SECRET"}, {"redactedContent": "SECRET"}], 1),
    ],
)
def test_reasoning_of_converse_that_is_withheld(deltas: list[Object], redacted: int) -> None:
    """Report a block of reasoning without a text, once."""
    events = converse({"text": "a"})
    contents = [
        {"contentBlockDelta": {"contentBlockIndex": 9, "delta": {"reasoningContent": each}}}
        for each in deltas
    ]
    stop: Object = {"contentBlockStop": {"contentBlockIndex": 9}}
    assert read(frames([events[0], *contents, stop, *events[1:]])).redacted == redacted


def test_a_whole_answer_of_converse_with_citations() -> None:
    """Read the text that has citations, and withheld reasoning with a signature."""
    content: list[Object] = [
        {"reasoningContent": {"reasoningText": {"text": "", "signature": "SECRET"}}},
        {"citationsContent": {"content": [{"text": "Ye"}, {"text": "s"}], "citations": [{"title": "x"}]}},
        {"reasoningContent": {"reasoningText": {"text": "x" * 70_000, "signature": "SECRET"}}},
    ]
    body: Object = {"output": {"message": {"content": content}}, "stopReason": "end_turn"}
    found = read(json.dumps(body).encode())
    assert (found.redacted, found.closed) == (1, [("output_text", "Yes"), ("reasoning", "x" * 70_000)])


def test_halves_of_surrogates_in_names() -> None:
    """Give a context that every encoding can write."""
    translator = Translator()
    translator.feed(sse([{**chunk({"content": "a"}), "id": "\ud83d", "model": "m\udc00"}]))
    assert "\ufffd" in translator.context["model"]
    assert all(value.encode() for value in translator.context.values())


def test_numbers_that_other_readers_of_json_refuse() -> None:
    """Leave out numbers of an error that are not finite or have hundreds of digits."""
    error = (
        b'{"code": "server_error", "a": NaN, "b": -Infinity, "c": 1e999, "d": 1' + b"0" * 5000 + b', "e": 2}'
    )
    body = b'data: {"type": "response.failed", "response": {"error": ' + error + b"}}\n\n"
    translator = Translator()
    (end,) = [each for each in translator.feed(body) if each["type"] == "response.failed"]
    assert end["response"]["error"] == {
        "code": "server_error",
        "a": None,
        "b": None,
        "c": None,
        "d": 0,
        "e": 2,
    }
    assert not translator.left_out
    found = read(
        b'data: {"id": 1'
        + b"0" * 5000
        + b', "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}'
    )
    assert found.closed == [("output_text", "a")]


def test_a_huge_error_of_a_response_is_cut() -> None:
    """Copy a limited part of an error, so that its end is no event that a worker must refuse."""
    error = {
        "code": "server_error",
        **{f"k{number}": "api key sk- " * 700 for number in range(300)},
        "x" * 999: 1,
    }
    body = sse([{"type": "response.failed", "response": {"error": error}}])
    *_, end = Translator().feed(body)
    assert end["response"]["error"]["code"] == "server_error"
    assert len(json.dumps(end)) < 100_000


def test_odd_fields_of_responses_cost_only_themselves() -> None:
    """Pass only fields of the right type on."""
    events: list[Object] = [
        {"type": "response.created", "sequence_number": 0, "response": {"id": "r"}},
        {
            "type": "response.refusal.delta",
            "output_index": "0",
            "content_index": None,
            "item_id": 5,
            "delta": "No",
            "text": 3,
        },
        {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": None},
        {"type": "response.completed", "response": {}},
    ]
    translator = Translator()
    found = translator.feed(sse(events))
    assert found[1] == {
        "type": "response.refusal.delta",
        "sequence_number": 1,
        "output_index": 0,
        "delta": "No",
    }
    assert translator.left_out == {"delta without a text": 1}
    joined = Translator()
    numbers = [1, None, "2", True, 2**70]
    found = joined.feed(sse([{**events[1], "sequence_number": each} for each in numbers]))
    assert [each.get("sequence_number") for each in found] == [1, None, None, None, None]


def test_a_message_that_two_servers_framed() -> None:
    """Read a message with two names of the field before it."""
    body = sse([chunk({"content": "a"}, "stop")], done=True).replace(b"data: ", b"data: data: ")
    found = read(body)
    assert (found.closed, found.status) == ([("output_text", "a")], "completed")


def test_the_end_of_a_compressed_body_is_not_held() -> None:
    """Give all bytes of a body, though zlib has read its last byte before it gives the bytes of it."""
    for size in range(65_400, 67_000, 7):
        data = zlib.compress(b"a" * size, 9)[2:-4]
        assert sum(map(len, Compressed("deflate").feed(data))) == size


def test_a_compressed_body_that_breaks_off() -> None:
    """Take the end of the bytes for the end of the stream only if the encoding is complete."""
    events = json_lines([{"bytes": base64.b64encode(b"Yes").decode()}] * 5)
    data = zlib.compress(events)
    assert read(data, "bedrock.agents", content_encoding="deflate").status == "completed"
    found = read(data[:-4], "bedrock.agents", content_encoding="deflate")
    assert (found.closed, found.status) == ([], "failed")


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (sse([chunk({"content": "<think>Hm</th"})]), [("reasoning", "Hm</th")]),
        (sse([chunk({"content": "\n<thi"})]), [("output_text", "\n<thi")]),
        (sse([chunk({"content": "<"}), ERROR]), [("output_text", "<")]),
        (json_lines([{"model": "m", "response": "<think>a<", "done": False}]), [("reasoning", "a<")]),
        (
            json_lines([{"model": "m", "response": "<", "done": False}, {"error": "no memory"}]),
            [("output_text", "<")],
        ),
    ],
)
def test_what_may_be_a_tag_is_written_though_the_stream_breaks(body: bytes, texts: list[Any]) -> None:
    """Lose no character that was held because it might begin a tag; close nothing."""
    found = read(body)
    assert (found.texts, found.closed, found.status) == (texts, [], "failed")


def test_encrypted_reasoning_of_a_stream_that_breaks() -> None:
    """Report it as withheld, though its choice has not ended."""
    details = [{"type": "reasoning.encrypted", "data": "SECRET"}]
    assert read(sse([chunk({"reasoning_details": details}), chunk({"content": "a"})])).redacted == 1


def test_a_guardrail_of_converse_that_intervenes_before_a_break() -> None:
    """Give the block, as for agents and InvokeModel, unless a trace says that only words were masked."""
    delta: Object = {"contentBlockDelta": {"delta": {"text": "a"}}}
    intervened: Object = {**delta, "amazon-bedrock-guardrailAction": "INTERVENED"}
    found = read(json_lines([intervened]), "bedrock.converse")
    assert (found.status, found.details["reason"]) == ("incomplete", "INTERVENED")
    masked: Object = {**intervened, "amazon-bedrock-trace": {"guardrail": {"x": {"action": "ANONYMIZED"}}}}
    found = read(json_lines([masked]), "bedrock.converse")
    assert (found.status, found.details["reason"]) == ("failed", "stream_interrupted")
