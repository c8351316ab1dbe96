"""Test shapes that few servers send."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from deltaloom.dialects import Translator, dialect_of_path
from tests.client.dialects.reading import Reading, reading_of
from tests.client.dialects.streams import (
    TEXT,
    WHOLE_ANSWERS,
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


def test_a_whole_answer_of_anthropic_with_every_block() -> None:
    """Count the withheld thinking, and leave the tool call out."""
    content = [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "", "signature": "x"},
        {"type": "tool_use", "input": {}},
        {"type": "text", "text": "Yes"},
    ]
    found = read(json.dumps({"type": "message", "content": content, "stop_reason": "end_turn"}).encode())
    assert (found.texts, found.redacted, found.status) == ([("output_text", "Yes")], 2, "completed")


def test_a_fallback_in_the_usage() -> None:
    """Report a fallback that only the usage names."""
    events = message(block(0, TEXT, [{"type": "text_delta", "text": "Yes"}]))
    events[-2]["usage"] = {"iterations": [{"type": "message"}, {"type": "fallback_message", "model": "b"}]}
    translator = Translator()
    found = [each for each in translator.feed(sse(events)) if each["type"] == "deltaloom.response.fallback"]
    assert [each["to_model"] for each in found] == ["b"]


@pytest.mark.parametrize(
    ("iterations", "declined"),
    [
        ([{"type": "message", "model": "a"}, {"type": "fallback_message", "model": "b"}], "a"),
        (
            [
                {"type": "message", "model": "a"},
                {"type": "message", "model": "b"},
                {"type": "fallback_message", "model": "b"},
            ],
            "a",
        ),
        ([{"type": "message"}, {"type": "fallback_message", "model": "b"}], ""),
    ],
)
def test_the_model_that_declined_by_the_usage(iterations: list[Object], declined: str) -> None:
    """Name the last other model; the one that answered may have several iterations."""
    events = message(block(0, TEXT, []))
    events[-2]["usage"] = {"iterations": iterations}
    translator = Translator()
    found = [each for each in translator.feed(sse(events)) if each["type"] == "deltaloom.response.fallback"]
    assert [(each["from_model"], each["to_model"]) for each in found] == [(declined, "b")]


def test_the_category_of_a_prompt_that_openrouter_flagged() -> None:
    """Give the reasons of the moderation as the category, and not the words that it flagged."""
    metadata = {"reasons": ["violence", "hate"], "flagged_input": "SECRET"}
    body = {"error": {"code": 403, "message": "flagged", "metadata": metadata}}
    found = read(json.dumps(body).encode(), status=403, path="/chat/completions")
    assert found.details["provider_category"] == "hate, violence"
    assert found.details["provider_explanation"] == "flagged"
    assert "SECRET" not in str(found)


def test_a_number_counts_only_for_its_provider() -> None:
    """Know Z.ai's number if Z.ai is named; the same number of another provider means nothing."""
    body = sse([{"error": {"code": "1301", "message": "x"}}])
    assert read(body, "openai.chat", provider="z_ai").details["reason_class"] == "safety"
    assert "reason_class" not in read(body, "openai.chat").details


def test_a_failed_response_that_azure_filtered() -> None:
    """Keep the error of the response, and add the categories."""
    blocked = {"blocked": True, "content_filter_results": {"hate": {"filtered": True}}}
    response = {"status": "failed", "error": {"code": "content_filter"}, "content_filters": [blocked]}
    found = read(sse([{"type": "response.failed", "response": response}]))
    assert (found.status, found.details["code"]) == ("failed", "content_filter")
    assert found.details["provider_category"] == "hate"


def test_a_chat_answer_with_the_filters_of_responses() -> None:
    """Read Azure's list of filters in Chat Completions too."""
    blocked = {"blocked": True, "content_filter_results": {"hate": {"filtered": True}}}
    found = read(sse([{**chunk({"content": "a"}, "stop"), "content_filters": [blocked]}]))
    assert (found.details["reason"], found.details["provider_category"]) == ("content_filter", "hate")


def test_a_whole_answer_of_converse_with_withheld_reasoning() -> None:
    """Count the withheld part."""
    content: list[Object] = [{"reasoningContent": {"redactedContent": "x"}}, {"text": "Yes"}]
    body: Object = {"output": {"message": {"content": content}}, "stopReason": "end_turn"}
    assert read(json.dumps(body).encode()).redacted == 1


def test_a_finish_reason_that_means_cancelled() -> None:
    """End as cancelled if the provider says so."""
    found = read(sse([chunk({"content": "a"}), chunk(finish="cancelled")]))
    assert (found.status, found.details["reason"]) == ("cancelled", "cancelled")


def test_streams_that_break_off() -> None:
    """End as interrupted, in every dialect."""
    bodies: dict[str, bytes] = {
        "ollama.chat": json_lines([{"model": "m", "message": {"content": "a"}, "done": False}]),
        "cohere.chat": sse([{"type": "message-start", "id": "c"}]),
        "gemini.generate_content": sse([candidate({"text": "a"})]),
        "bedrock.converse": json_lines(converse({"text": "a"})[:2]),
        "bedrock.invoke_model": json_lines([{"bytes": base64.b64encode(b'{"outputText": "a"}').decode()}]),
        "openai.responses": sse([{"type": "response.created", "response": {}}]),
    }
    for dialect, body in bodies.items():
        found = read(body, dialect)
        assert (found.status, found.details["reason"]) == ("failed", "stream_interrupted"), dialect


def test_dialects_by_path() -> None:
    """Know a dialect by the end of the path, and believe the body more than the path."""
    paths = {
        "/v1/messages?beta=true": "anthropic.messages",
        "/openai/deployments/x/chat/completions/": "openai.chat",
        "/v1beta/models/g:streamGenerateContent": "gemini.generate_content",
        "/unknown": None,
    }
    assert {path: (found := dialect_of_path(path)) and found.name for path in paths} == paths
    translator = Translator(path="/v1/messages")
    translator.feed(sse([chunk({"content": "a"})]))
    assert translator.dialect == "openai.chat"


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("invoke-with-response-stream", json_lines(converse({"text": "a"}))),
        ("invoke-with-response-stream", json_lines(message(block(0, TEXT, []), stop="refusal"))),
        ("invoke-with-response-stream", sse([chunk({"content": "a"})], done=True)),
        ("invoke", json.dumps(WHOLE_ANSWERS["anthropic"][1]).encode()),
        ("invoke", json.dumps(WHOLE_ANSWERS["converse"][1]).encode()),
    ],
    ids=["converse", "anthropic", "chat", "whole anthropic", "whole converse"],
)
def test_messages_at_the_path_of_invoke_model(operation: str, body: bytes) -> None:
    """Name InvokeModel for messages without its frames, which look like those of the model's maker."""
    by_path = Translator(path=f"/model/x/{operation}", response_id="r")
    by_messages = Translator(response_id="r")
    events = by_path.feed(body) + by_path.end()
    assert events == by_messages.feed(body) + by_messages.end()
    assert (by_path.context["dialect"], by_path.context["provider"]) == (
        "bedrock.invoke_model",
        "aws.bedrock",
    )


def test_messages_that_contradict_the_path_of_invoke_model() -> None:
    """Believe frames of ConverseStream and traces of an agent, which no model of InvokeModel sends."""
    trace: Object = {"trace": {"agentId": "A1", "trace": {"failureTrace": {}}}}
    for body, dialect in (
        (frames(converse({"text": "a"})), "bedrock.converse"),
        (json_lines([trace]), "bedrock.agents"),
    ):
        translator = Translator(path="/model/x/invoke-with-response-stream")
        translator.feed(body)
        translator.end()
        assert translator.dialect == dialect


def test_the_dialect_of_messages_without_a_type() -> None:
    """Detect the dialect by the names of events and frames."""
    named = b'event: message_start\ndata: {"message": {"id": "m"}}\n\n'
    framed = frame("messageStart", {"role": "assistant"})
    coded = frame("chunk", {"bytes": base64.b64encode(b"[1]").decode()})
    for body, dialect in (
        (named, "anthropic.messages"),
        (framed, "bedrock.converse"),
        (coded, "bedrock.agents"),
    ):
        translator = Translator()
        translator.feed(body)
        translator.end()
        assert translator.dialect == dialect


def test_traces_in_frames_show_an_agent() -> None:
    """Detect an agent by its traces: in frames, they have no `trace` around them."""
    reasoning: Object = {"reasoningContent": {"reasoningText": {"text": "Hm"}}}
    trace: Object = {"orchestrationTrace": {"modelInvocationOutput": reasoning}}
    for payload in ({"agentId": "A1", "trace": trace}, {"sessionId": "s", "trace": trace}):
        assert read(frame("trace", payload) * 9).texts == [("reasoning", "Hm")] * 9
    assert read(json_lines([{"trace": {"agentId": "A1", "trace": trace}}])).texts == [("reasoning", "Hm")]
    assert read(json_lines([{"trace": {"trace": {"failureTrace": {}}}}])).status == "completed"


def test_several_steps_in_one_trace_have_a_fixed_order() -> None:
    """Write the same events in each process, though a trace has more than its one step."""
    steps = ("routingClassifier", "preProcessing", "postProcessing", "orchestration")
    trace: Object = {f"{step}Trace": {"rationale": {"text": step}} for step in steps}
    found = read(json_lines([{"trace": {"agentId": "A1", "trace": trace}}]))
    assert [text for _, text in found.texts] == [
        "orchestration",
        "postProcessing",
        "preProcessing",
        "routingClassifier",
    ]


def test_done_after_the_end() -> None:
    """Count no `[DONE]` after the end of a dialect that has another one."""
    translator = Translator()
    translator.feed(sse(message(block(0, TEXT, [])), done=True))
    assert translator.is_over
    assert not translator.left_out


def test_the_first_messages_may_show_nothing() -> None:
    """Hold the first messages until one shows the dialect; go on with the path's after four."""
    ping = b'data: {"x": 1}\n\n'
    assert read(ping * 3 + sse([chunk({"content": "a"}, "stop")])).texts == [("output_text", "a")]
    found = read(ping * 5 + sse([chunk({"content": "a"}, "stop")]), path="/chat/completions")
    assert found.texts == [("output_text", "a")]
    translator = Translator()
    unknown = reading_of(translator.feed(ping * 9) + translator.end())
    assert (unknown.status, unknown.details["reason"]) == ("failed", "dialect_unknown")
    assert translator.left_out == {"message of an unknown dialect": 9}


def test_pieces_of_one_byte_in_an_encoding() -> None:
    """Wait for the two bytes that show the format of deflate; ignore what follows the end."""
    body = sse([chunk({"content": "a"}, "stop")])
    for data in (zlib.compress(body) + b"junk", zlib.compress(body)[2:-4]):
        translator = Translator(content_encoding="deflate")
        events = [event for byte in data for event in translator.feed(bytes([byte]))] + translator.end()
        assert reading_of(events).texts == [("output_text", "a")]
    assert read(b"", content_encoding="gzip").details["reason"] == "stream_interrupted"


def test_odd_items_of_responses() -> None:
    """Keep the texts of items that have them, and nothing else."""
    events: list[Object] = [
        {"type": "response.created", "response": {"model": "m"}},
        {"type": "response.output_item.done", "item": {"type": "web_search_call", "action": "x"}},
        {"type": "response.output_item.done", "item": {"type": "message", "content": ["x", {"type": "x"}]}},
        {
            "type": "response.reasoning_summary_part.added",
            "output_index": 1,
            "part": {"type": "summary_text"},
        },
        {"type": "response.failed", "response": {"error": {"code": "x", "deep": [[[[[[[["y"]]]]]]]]}}},
    ]
    translator = Translator()
    found = translator.feed(sse(events)) + translator.end()
    assert [each["item"] for each in found if "item" in each] == [
        {"type": "web_search_call"},
        {"type": "message", "content": [{}, {"type": "x"}]},
    ]
    assert found[-1]["type"] == "response.failed"
    assert translator.end() == []


@pytest.mark.parametrize("error", ["boom", {"message": "boom"}])
def test_errors_of_http_as_strings_and_objects(error: Any) -> None:
    """Take the message of an error in either form."""
    found = read(json.dumps({"error": error}).encode(), status=500, path="/api/chat")
    assert (found.status, found.details["message"]) == ("failed", "boom")


@pytest.mark.parametrize("done", [True, False])
def test_errors_as_vllm_sends_them(*, done: bool) -> None:
    """Read an error that is a message of its own, without `error` around it."""
    error: Object = {"object": "error", "message": "boom", "type": "InternalServerError", "code": 500}
    found = read(sse([chunk({"content": "a"}), error], done=done))
    assert (found.closed, found.status, found.details["reason"]) == ([], "failed", "InternalServerError")
    found = read(json.dumps(error).encode())
    assert (found.status, found.details["reason"]) == ("failed", "InternalServerError")


@pytest.mark.parametrize(
    ("status", "body", "reason", "reason_class"),
    [
        (500, {"error": {"message": "x", "type": "None", "code": "500"}}, "500", "error"),
        (403, {"message": "no"}, "403", None),
        (400, {"error": {"code": "new_code", "type": "invalid_request_error"}}, "new_code", None),
        (400, {"error": {"type": "invalid_request_error"}}, "invalid_request_error", "error"),
        (
            403,
            {"__type": "com.amazon#AccessDeniedException", "message": "no"},
            "AccessDeniedException",
            "error",
        ),
        (422, {"message": "blocked output: please adjust your prompt and try again"}, None, "policy"),
        (498, {"error": {"code": "new_code"}}, "new_code", "error"),
    ],
)
def test_the_class_of_errors(status: int, body: Object, reason: str | None, reason_class: str | None) -> None:
    """Give a class only if the table, the words or the HTTP status are certain."""
    found = read(json.dumps(body).encode(), path="/v1/chat/completions", status=status)
    assert found.details.get("reason_class") == reason_class
    assert found.details["reason"] == (reason or "blocked output: please adjust your prompt")


def test_a_status_of_cohere_means_a_policy() -> None:
    """Take 498 for a policy at Cohere, whose words may change; at Groq it is a lack of capacity."""
    body = json.dumps({"message": "unsafe request"}).encode()
    found = read(body, path="/v2/chat", status=498)
    assert (found.status, found.details["reason_class"]) == ("failed", "policy")
    assert found.details["provider_explanation"] == "unsafe request"


@pytest.mark.parametrize("dialect", ["openai.chat", "gemini.generate_content"])
def test_a_block_counts_though_another_answer_breaks_off(dialect: str) -> None:
    """Give the block of one answer, though another one has no end."""
    if dialect == "openai.chat":
        messages = [chunk({"content": "a"}, "content_filter"), chunk({"content": "b"}, index=1)]
    else:
        messages = [candidate({"text": "a"}, finish="SAFETY"), candidate({"text": "b"}, index=1)]
    found = read(sse(messages))
    assert (found.status, found.details["reason_class"]) == ("incomplete", "safety")
    assert found.closed == [("output_text", "a")]


def test_ends_without_a_reason() -> None:
    """Believe the event that ends a stream, if it gives no reason."""
    bodies: dict[str, bytes] = {
        "anthropic.messages": sse([*message()[:2], {"type": "message_stop"}]),
        "cohere.chat": sse([{"type": "message-start", "id": "c"}, {"type": "message-end", "delta": {}}]),
        "gemini.interactions": sse([{"event_type": "interaction.completed", "interaction": {}}]),
        "openai.chat": sse([chunk({"content": "a"})], done=True),
        "ollama.chat": json_lines([{"model": "m", "message": {"content": "a"}, "done": True}]),
    }
    for dialect, body in bodies.items():
        assert read(body, dialect).status == "completed", dialect


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"outputs": [{"text": "Ye"}]}, {"outputs": [{"text": "s", "stop_reason": "stop"}]}], None),
        ([{"choices": [{"text": "Ye"}]}, {"choices": [{"text": "s", "stop_reason": "length"}]}], "length"),
        (
            [
                {"event_type": "text-generation", "text": "Yes"},
                {"event_type": "stream-end", "finish_reason": "MAX_TOKENS", "response": {"text": "Yes"}},
            ],
            "MAX_TOKENS",
        ),
        ([{"results": [{"outputText": "Yes", "completionReason": "CONTENT_FILTERED"}]}], "CONTENT_FILTERED"),
        ([{"generations": [{"text": "Yes", "finish_reason": "COMPLETE"}]}], None),
    ],
    ids=["Mistral", "DeepSeek", "Command R", "Titan", "Command"],
)
def test_models_of_bedrock_with_shapes_of_their_own(messages: list[Object], reason: str | None) -> None:
    """Read the texts and ends of the models that Bedrock serves in their own shapes."""
    found = read(invoked(messages))
    assert (found.closed, found.details["reason"]) == ([("output_text", "Yes")], reason)


@pytest.mark.parametrize(
    "damaged",
    [b'data: {"choices": [\n\n', b'data: {"choices": "x" "y"}\n\n'],
)
def test_no_text_is_whole_after_a_message_was_lost(damaged: bytes) -> None:
    """Close no part after damaged JSON, which may have had a fragment; other words mean nothing."""
    start, end = sse([chunk({"content": "a"})]), sse([chunk(finish="stop")])
    found = read(start + damaged + end)
    assert (found.texts, found.closed, found.status) == ([("output_text", "a")], [], "completed")
    assert read(start + b"data: keep-alive\n\n" + end).closed == [("output_text", "a")]


def test_no_text_is_whole_after_a_damaged_frame() -> None:
    """Close no part after a frame with a wrong checksum."""
    damaged = bytearray(frame("contentBlockDelta", {"delta": {"text": "x"}}))
    damaged[-6] ^= 1
    events = converse({"text": "a"})
    body = b"".join(frame(name, each[name]) for each in events[:2] for name in each) + bytes(damaged)
    found = read(body + b"".join(frame(name, each[name]) for each in events[2:] for name in each))
    assert (found.texts, found.closed, found.status) == ([("output_text", "a")], [], "completed")


def test_texts_that_were_closed_before_a_loss_are_whole() -> None:
    """Read the messages before a lost one first, though they come in the same bytes."""
    events = message(block(0, TEXT, [{"type": "text_delta", "text": "a"}]))
    for start, end in (
        (sse(events[:-2]), sse(events[-2:])),
        (json_lines(events[:-2]), json_lines(events[-2:])),
    ):
        damaged = b'data: {"x"}\n\n' if start.startswith(b"event") else b'{"x"}\n'
        found = read(start + damaged + end)
        assert (found.closed, found.status) == ([("output_text", "a")], "completed")
