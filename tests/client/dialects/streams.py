"""Streams of each dialect, written after the providers' documentation, and their encodings."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Object = dict[str, Any]


class Sample(NamedTuple):
    """A stream and what a translator must make of it."""

    dialect: str
    messages: Sequence[Object]
    texts: Sequence[tuple[str, str]]
    """Kind and text of each part, in the order of their beginnings."""
    status: str = "completed"
    reason: str | None = None
    reason_class: str | None = None
    category: str | None = None
    explanation: str | None = None
    redacted: int = 0
    ends_with_done: bool = False


def sse(messages: Iterable[Object], line_end: bytes = b"\n", *, done: bool = False) -> bytes:
    """Return the messages as server-sent events."""
    body = b"".join(
        (b"event: " + message["type"].encode() + line_end if "type" in message else b"")
        + b"data: "
        + json.dumps(message).encode()
        + line_end * 2
        for message in messages
    )
    return body + (b"data: [DONE]" + line_end * 2 if done else b"")


def json_lines(messages: Iterable[Object]) -> bytes:
    """Return the messages as JSON lines."""
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def frame(event: str, payload: Object, kind: str = ":event-type") -> bytes:
    """Return a frame of an AWS event stream."""
    headers = b""
    for name, value in ((kind, event), (":content-type", "application/json")):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + len(value).to_bytes(2) + value.encode()
    data = json.dumps(payload).encode()
    size = 12 + len(headers) + len(data) + 4
    prelude = size.to_bytes(4) + len(headers).to_bytes(4)
    body = prelude + zlib.crc32(prelude).to_bytes(4) + headers + data
    return body + zlib.crc32(body).to_bytes(4)


def frames(messages: Iterable[Object]) -> bytes:
    """Return messages with one key each, the event's name, as AWS frames."""
    return b"".join(frame(name, payload) for each in messages for name, payload in each.items())


def invoked(messages: Iterable[Object]) -> bytes:
    """Return messages as the chunks of InvokeModelWithResponseStream."""
    return b"".join(
        frame("chunk", {"bytes": base64.b64encode(json.dumps(each).encode()).decode(), "p": "abc"})
        for each in messages
    )


def body_of(sample: Sample) -> bytes:
    """Return the body that a provider of the dialect sends."""
    match sample.dialect:
        case "bedrock.converse" | "bedrock.agents":
            return frames(sample.messages)
        case "bedrock.invoke_model":
            return invoked(sample.messages)
        case "ollama.chat":
            return json_lines(sample.messages)
        case _:
            return sse(sample.messages, done=sample.ends_with_done)


def chunk(delta: Object | None = None, finish: str | None = None, index: int = 0, **more: Any) -> Object:
    """Return a chunk of Chat Completions."""
    choice: Object = {"index": index, "delta": delta or {}, "finish_reason": finish, **more}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-5", "choices": [choice]}


def block(index: int, start: Object, deltas: Iterable[Object]) -> list[Object]:
    """Return the events of a content block of Anthropic."""
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def message(*blocks: list[Object], stop: str = "end_turn", details: Object | None = None) -> list[Object]:
    """Return the events of an Anthropic message."""
    return [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "claude-5",
                "content": [],
                "usage": {"input_tokens": 1, "output_tokens": 1},
            },
        },
        {"type": "ping"},
        *(event for each in blocks for event in each),
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_details": details},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]


def candidate(*parts: Object, finish: str | None = None, **more: Any) -> Object:
    """Return a chunk of Gemini."""
    content: Object = {"index": 0, "content": {"role": "model", "parts": list(parts)}, **more}
    if finish:
        content["finishReason"] = finish
    return {"candidates": [content], "modelVersion": "gemini-3", "responseId": "g1"}


def converse(*deltas: Object, stop: str = "end_turn", trace: Object | None = None) -> list[Object]:
    """Return the events of ConverseStream with one block per delta."""
    events: list[Object] = [{"messageStart": {"role": "assistant"}}]
    for index, delta in enumerate(deltas):
        events.append({"contentBlockDelta": {"contentBlockIndex": index, "delta": delta, "p": "abcd"}})
        events.append({"contentBlockStop": {"contentBlockIndex": index}})
    events.append({"messageStop": {"stopReason": stop}})
    return [*events, {"metadata": {"usage": {}, "trace": {"guardrail": trace or {}}}}]


def assessed(policy: str, action: str) -> Object:
    """Return the trace of a guardrail with one finding."""
    found = {policy: {"filters": [{"type": "X", "action": action}]}}
    return {"inputAssessment": {"id": found}, "actionReason": f"Guardrail {action.lower()}."}


def said(text: str) -> Object:
    """Return the frame of InvokeAgent with a piece of the answer."""
    return {"chunk": {"bytes": base64.b64encode(text.encode()).decode()}}


def traced(trace: Object) -> Object:
    """Return the frame of InvokeAgent with a trace."""
    return {"trace": {"agentId": "A1", "trace": trace}}


THINKING = {"type": "thinking", "thinking": "", "signature": ""}
TEXT = {"type": "text", "text": ""}

SAMPLES: dict[str, Sample] = {
    "chat refusal": Sample(
        "openai.chat",
        [
            chunk({"role": "assistant", "content": None, "refusal": ""}),
            chunk({"refusal": "I'm sorry, "}),
            chunk({"refusal": "I can't."}),
            chunk(finish="stop"),
            {"id": "chatcmpl-1", "choices": [], "usage": {"total_tokens": 9}},
        ],
        [("refusal", "I'm sorry, I can't.")],
        ends_with_done=True,
    ),
    "chat reasoning in one field": Sample(
        "openai.chat",
        [
            chunk({"reasoning_content": "Hm, "}),
            chunk({"reasoning_content": "yes.", "content": "Yes"}),
            chunk(finish="stop"),
        ],
        [("reasoning", "Hm, yes."), ("output_text", "Yes")],
    ),
    "chat reasoning in two fields": Sample(
        "openai.chat",
        [
            chunk(
                {"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0}]}
            ),
            chunk(
                {"reasoning": "b", "reasoning_details": [{"type": "reasoning.text", "text": "b", "index": 0}]}
            ),
            chunk({"content": "Yes"}, finish="stop"),
        ],
        [("reasoning", "ab"), ("output_text", "Yes")],
        ends_with_done=True,
    ),
    "chat reasoning in fields of their own chunks": Sample(
        "openai.chat",
        [
            chunk({"reasoning": "ab"}),
            chunk({"reasoning_details": [{"type": "reasoning.text", "text": "ab"}]}),
            chunk({"content": "Yes"}, finish="stop"),
        ],
        [("reasoning", "ab"), ("output_text", "Yes")],
    ),
    "chat summary and encrypted reasoning": Sample(
        "openai.chat",
        [
            chunk({"reasoning": "S", "reasoning_details": [{"type": "reasoning.summary", "summary": "S"}]}),
            chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "SECRET"}]}),
            chunk({"content": "Yes"}, finish="stop"),
        ],
        [("reasoning_summary", "S"), ("output_text", "Yes")],
        redacted=1,
    ),
    "chat content as a list": Sample(
        "openai.chat",
        [
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}),
            chunk({"content": [{"type": "text", "text": "Ye"}]}),
            chunk({"content": "s"}, finish="stop"),
        ],
        [("reasoning", "Hm"), ("output_text", "Yes")],
    ),
    "chat thinking tags": Sample(
        "openai.chat",
        [
            chunk({"content": "<th"}),
            chunk({"content": "ink>Hm</thi"}),
            chunk({"content": "nk>Yes <think>"}),
            chunk(finish="stop"),
        ],
        [("reasoning", "Hm"), ("output_text", "Yes <think>")],
    ),
    "chat choices": Sample(
        "openai.chat",
        [
            chunk({"content": "a"}),
            chunk({"refusal": "No"}, index=1),
            chunk({"content": "b"}, finish="stop"),
            chunk({"refusal": "."}, finish="stop", index=1),
        ],
        [("output_text", "ab"), ("refusal", "No.")],
        ends_with_done=True,
    ),
    "chat text after the finish": Sample(
        "openai.chat",
        [chunk({"content": "a"}), chunk(finish="tool_calls"), chunk({"content": "b"}, finish="stop")],
        [("output_text", "ab")],
    ),
    "chat filter": Sample(  # generated: recorded nowhere
        "openai.chat",
        [
            chunk({"content": "Mix "}),
            {
                "id": "",
                "model": "",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "content_filter",
                        "content_filter_results": {
                            "violence": {"filtered": True},
                            "hate": {"filtered": False},
                        },
                    }
                ],
            },
        ],
        [("output_text", "Mix ")],
        "incomplete",
        "content_filter",
        "safety",
        "violence",
    ),
    "chat native reason": Sample(
        "openai.chat",
        [chunk({"content": "Mix "}), chunk(finish="stop", native_finish_reason="SAFETY")],
        [("output_text", "Mix ")],
        "incomplete",
        "SAFETY",
        "safety",
    ),
    "chat sensitive": Sample(  # generated: recorded nowhere
        "openai.chat",
        [chunk({"content": "M"}), chunk(finish="sensitive")],
        [("output_text", "M")],
        "incomplete",
        "sensitive",
        "safety",
    ),
    "chat error": Sample(
        "openai.chat",
        [chunk({"content": "M"}), {"error": {"code": "overloaded", "message": "later"}}],
        [("output_text", "M")],
        "failed",
        "overloaded",
        "error",
    ),
    "anthropic": Sample(
        "anthropic.messages",
        message(
            block(
                0,
                THINKING,
                [
                    {"type": "thinking_delta", "thinking": "Hm"},
                    {"type": "signature_delta", "signature": "SECRET"},
                ],
            ),
            block(1, {"type": "redacted_thinking", "data": "SECRET"}, []),
            block(2, THINKING, [{"type": "signature_delta", "signature": "SECRET"}]),
            block(3, THINKING, [{"type": "thinking_delta", "thinking": "Ah"}]),
            block(4, TEXT, [{"type": "text_delta", "text": "Ye"}, {"type": "text_delta", "text": "s"}]),
        ),
        [("reasoning", "Hm"), ("reasoning", "Ah"), ("output_text", "Yes")],
        redacted=2,
    ),
    "anthropic refusal": Sample(
        "anthropic.messages",
        message(
            block(0, TEXT, [{"type": "text_delta", "text": "Hi"}]),
            stop="refusal",
            details={
                "type": "refusal",
                "category": "cyber",
                "explanation": "No.",
                "fallback_credit_token": "SECRET",
            },
        ),
        [("output_text", "Hi")],
        "incomplete",
        "refusal",
        "refusal",
        "cyber",
        "No.",
    ),
    "anthropic error": Sample(
        "anthropic.messages",
        [*message()[:2], {"type": "error", "error": {"type": "overloaded_error", "message": "later"}}],
        [],
        "failed",
        "overloaded_error",
        "error",
    ),
    "gemini": Sample(
        "gemini.generate_content",
        [
            candidate({"text": "Hm", "thought": True}, finish="STOP"),
            candidate({"text": "Ye", "thoughtSignature": "SECRET"}, finish="STOP"),
            candidate({"text": "s"}, finish="STOP"),
        ],
        [("reasoning", "Hm"), ("output_text", "Yes")],
    ),
    "gemini safety": Sample(
        "gemini.generate_content",
        [
            candidate({"text": "Mix"}),
            candidate(
                finish="SAFETY", finishMessage="Why", safetyRatings=[{"category": "HARM", "blocked": True}]
            ),
        ],
        [("output_text", "Mix")],
        "incomplete",
        "SAFETY",
        "safety",
        "HARM",
        "Why",
    ),
    "gemini prompt": Sample(
        "gemini.generate_content",
        [{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "Why"}}],
        [],
        "incomplete",
        "PROHIBITED_CONTENT",
        "policy",
        None,
        "Why",
    ),
    "gemini unknown reason": Sample(
        "gemini.generate_content",
        [candidate({"text": "Mix"}, finish="NEW_VALUE")],
        [("output_text", "Mix")],
        "incomplete",
        "NEW_VALUE",
    ),
    "interactions": Sample(
        "gemini.interactions",
        [
            {"event_type": "interaction.created", "interaction": {"id": "v1", "model": "gemini-3"}},
            {"event_type": "step.start", "index": 0, "step": {"type": "thought"}},
            {
                "event_type": "step.delta",
                "index": 0,
                "delta": {"type": "thought_summary", "content": {"text": "Hm"}},
            },
            {
                "event_type": "step.delta",
                "index": 0,
                "delta": {"type": "thought_signature", "signature": "SECRET"},
            },
            {"event_type": "step.stop", "index": 0},
            {"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "Yes"}},
            {"event_type": "step.stop", "index": 1},
            {"event_type": "interaction.completed", "interaction": {"id": "v1", "status": "completed"}},
        ],
        [("reasoning_summary", "Hm"), ("output_text", "Yes")],
        ends_with_done=True,
    ),
    "converse": Sample(
        "bedrock.converse",
        converse(
            {"reasoningContent": {"text": "Hm"}},
            {"reasoningContent": {"redactedContent": "SECRET"}},
            {"text": "Yes"},
        ),
        [("reasoning", "Hm"), ("output_text", "Yes")],
        redacted=1,
    ),
    "converse blocked": Sample(
        "bedrock.converse",
        converse({"text": "Sorry."}, stop="guardrail_intervened", trace=assessed("topicPolicy", "BLOCKED")),
        [("output_text", "Sorry.")],
        "incomplete",
        "guardrail_intervened",
        "guardrail",
        "topicPolicy",
        "Guardrail blocked.",
    ),
    "converse masked": Sample(
        "bedrock.converse",
        converse(
            {"text": "{NAME}"},
            stop="guardrail_intervened",
            trace=assessed("sensitiveInformationPolicy", "ANONYMIZED"),
        ),
        [("output_text", "{NAME}")],
    ),
    "converse filtered": Sample(  # generated: recorded nowhere
        "bedrock.converse",
        converse({"text": "M"}, stop="content_filtered"),
        [("output_text", "M")],
        "incomplete",
        "content_filtered",
        "safety",
    ),
    "invoke model": Sample(
        "bedrock.invoke_model",
        message(block(0, TEXT, [{"type": "text_delta", "text": "Yes"}]), stop="refusal"),
        [("output_text", "Yes")],
        "incomplete",
        "refusal",
        "refusal",
    ),
    "ollama": Sample(
        "ollama.chat",
        [
            {
                "model": "qwen3",
                "message": {"role": "assistant", "content": "", "thinking": "Hm"},
                "done": False,
            },
            {"model": "qwen3", "message": {"role": "assistant", "content": "Yes"}, "done": False},
            {
                "model": "qwen3",
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "stop",
            },
        ],
        [("reasoning", "Hm"), ("output_text", "Yes")],
    ),
    "cohere": Sample(
        "cohere.chat",
        [
            {"type": "message-start", "id": "c1", "delta": {"message": {"content": []}}},
            {
                "type": "content-start",
                "index": 0,
                "delta": {"message": {"content": {"type": "thinking", "thinking": ""}}},
            },
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "Hm"}}}},
            {"type": "content-end", "index": 0},
            {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "M"}}}},
            {"type": "content-end", "index": 1},
            {"type": "message-end", "delta": {"finish_reason": "ERROR_TOXIC"}},
        ],
        [("reasoning", "Hm"), ("output_text", "M")],
        "incomplete",
        "ERROR_TOXIC",
        "safety",
    ),
    "responses": Sample(
        "openai.responses",
        [
            {
                "type": "response.created",
                "sequence_number": 0,
                "response": {"id": "resp_x", "model": "gpt-5", "instructions": "SECRET"},
            },
            {
                "type": "response.refusal.delta",
                "sequence_number": 1,
                "output_index": 0,
                "content_index": 0,
                "delta": "No",
            },
            {
                "type": "response.refusal.done",
                "sequence_number": 2,
                "output_index": 0,
                "content_index": 0,
                "refusal": "No",
            },
            {
                "type": "response.output_item.done",
                "sequence_number": 3,
                "output_index": 1,
                "item": {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "SECRET"},
            },
            {
                "type": "response.completed",
                "sequence_number": 4,
                "response": {"id": "resp_x", "status": "completed", "output": []},
            },
        ],
        [("refusal", "No")],
        redacted=1,
    ),
    "chat end after a filter": Sample(
        "openai.chat",
        [chunk({"content": "M"}, "content_filter"), chunk(finish="stop")],
        [("output_text", "M")],
        "incomplete",
        "content_filter",
        "safety",
    ),
    "chat native length": Sample(
        "openai.chat",
        [chunk({"content": "M"}), chunk(finish="stop", native_finish_reason="max_tokens")],
        [("output_text", "M")],
        "incomplete",
        "max_tokens",
        "length",
    ),
    "gemini end after a filter": Sample(
        "gemini.generate_content",
        [candidate({"text": "M"}, finish="SAFETY"), candidate(finish="STOP")],
        [("output_text", "M")],
        "incomplete",
        "SAFETY",
        "safety",
    ),
    "interactions of an unknown status": Sample(
        "gemini.interactions",
        [
            {"event_type": "interaction.created", "interaction": {}},
            {"event_type": "interaction.completed", "interaction": {"status": "budget_exceeded"}},
        ],
        [],
        "incomplete",
        "budget_exceeded",
    ),
    "invoke model intervened": Sample(
        "bedrock.invoke_model",
        [
            {
                **each,
                **(
                    {"amazon-bedrock-guardrailAction": "INTERVENED"}
                    if each["type"] == "message_delta"
                    else {}
                ),
            }
            for each in message(block(0, TEXT, [{"type": "text_delta", "text": "Sorry."}]))
        ],
        [("output_text", "Sorry.")],
        "incomplete",
        "INTERVENED",
        "guardrail",
    ),
    "invoke model masked": Sample(
        "bedrock.invoke_model",
        [
            {
                "outputText": "{NAME}",
                "completionReason": "FINISH",
                "amazon-bedrock-guardrailAction": "INTERVENED",
                "amazon-bedrock-trace": {"guardrail": assessed("sensitiveInformationPolicy", "ANONYMIZED")},
            }
        ],
        [("output_text", "{NAME}")],
    ),
    "chat older completions": Sample(
        "openai.chat",
        [{"id": "c", "choices": [{"index": 0, "text": "Yes", "finish_reason": "stop"}]}],
        [("output_text", "Yes")],
    ),
    "chat prompt filter": Sample(
        "openai.chat",
        [
            {
                "choices": [],
                "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}],
            },
            chunk({"content": "M"}, finish="stop"),
        ],
        [("output_text", "M")],
        "incomplete",
        "content_filter",
        "safety",
        "hate",
    ),
    "chat error as a string": Sample(
        "openai.chat",
        [chunk({"content": "M"}), {"error": "boom"}],
        [("output_text", "M")],
        "failed",
        "error",
        "error",
    ),
    "chat error of a choice": Sample(
        "openai.chat",
        [
            chunk({"content": "M"}),
            chunk(
                finish="stop",
                native_finish_reason="MALFORMED_FUNCTION_CALL",
                error={"code": 502, "message": "x"},
            ),
        ],
        [("output_text", "M")],
        "failed",
        "MALFORMED_FUNCTION_CALL",
        "error",
    ),
    "chat blocked choice with an error": Sample(
        "openai.chat",
        [
            chunk({"content": "M"}),
            chunk(finish="stop", native_finish_reason="SAFETY", error={"code": 400, "message": "why"}),
        ],
        [("output_text", "M")],
        "incomplete",
        "SAFETY",
        "safety",
        None,
        "why",
    ),
    "chat native error": Sample(
        "openai.chat",
        [chunk({"content": "M"}), chunk(finish="stop", native_finish_reason="network_error")],
        [("output_text", "M")],
        "failed",
        "network_error",
        "error",
    ),
    "chat refusal in a list": Sample(
        "openai.chat",
        [
            chunk(
                {"content": [{"type": "refusal", "refusal": "No"}, {"type": "thinking", "thinking": "Hm"}]}
            ),
            chunk(finish="stop"),
        ],
        [("refusal", "No"), ("reasoning", "Hm")],
    ),
    "chat one choice without an end": Sample(
        "openai.chat",
        [chunk({"content": "a"}, finish="stop"), chunk({"content": "b"}, index=1)],
        [("output_text", "a"), ("output_text", "b")],
        ends_with_done=True,
    ),
    "anthropic text at the beginning of a block": Sample(
        "anthropic.messages",
        message(
            block(
                0,
                {"type": "thinking", "thinking": "Hm", "signature": "SECRET"},
                [{"type": "citations_delta"}],
            ),
            block(0, {"type": "text", "text": "Yes"}, []),
            block(1, {"type": "tool_use", "input": {}}, [{"type": "input_json_delta", "partial_json": "{}"}]),
        ),
        [("reasoning", "Hm"), ("output_text", "Yes")],
    ),
    "gemini inside a response": Sample(
        "gemini.generate_content",
        [{"response": candidate({"text": "Yes"}, finish="STOP")}],
        [("output_text", "Yes")],
        ends_with_done=True,
    ),
    "gemini error": Sample(
        "gemini.generate_content",
        [candidate({"text": "M"}), {"error": {"code": 503, "status": "UNAVAILABLE", "message": "later"}}],
        [("output_text", "M")],
        "failed",
        "UNAVAILABLE",
        "error",
    ),
    "interactions failed": Sample(
        "gemini.interactions",
        [
            {"event_type": "interaction.created", "interaction": {"id": "v1", "model": "gemini-3"}},
            {
                "event_type": "step.start",
                "index": 0,
                "step": {"type": "thought", "summary": [{"text": "S"}], "signature": "SECRET"},
            },
            {
                "event_type": "step.start",
                "index": 1,
                "step": {"type": "model_output", "content": [{"text": "Y"}]},
            },
            {
                "event_type": "interaction.status_update",
                "status": "failed",
                "error": {"code": "quota", "message": "later"},
            },
        ],
        [("reasoning_summary", "S"), ("output_text", "Y")],
        "failed",
        "quota",
    ),
    "interactions incomplete": Sample(
        "gemini.interactions",
        [
            {"event_type": "interaction.created", "interaction": {"id": "v1"}},
            {
                "event_type": "step.delta",
                "index": 0,
                "delta": {"type": "thought_signature", "signature": "SECRET"},
            },
            {"event_type": "step.stop", "index": 0},
            {"event_type": "interaction.completed", "interaction": {"status": "incomplete"}},
        ],
        [],
        "incomplete",
        "incomplete",
        redacted=1,
    ),
    "interactions cancelled": Sample(
        "gemini.interactions",
        [
            {"event_type": "interaction.created", "interaction": {}},
            {"event_type": "interaction.completed", "interaction": {"status": "cancelled"}},
        ],
        [],
        "cancelled",
        "cancelled",
    ),
    "interactions error": Sample(
        "gemini.interactions",
        [
            {"event_type": "interaction.created", "interaction": {}},
            {"event_type": "error", "error": {"code": "internal", "message": "x"}},
        ],
        [],
        "failed",
        "internal",
        "error",
    ),
    "agents": Sample(
        "bedrock.agents",
        [
            traced({"orchestrationTrace": {"rationale": {"text": "Hm"}}}),
            said("Ye"),
            traced(
                {
                    "orchestrationTrace": {
                        "modelInvocationOutput": {"reasoningContent": {"reasoningText": {"text": "Ah"}}}
                    }
                }
            ),
            said("s"),
            traced({"guardrailTrace": {"action": "NONE"}}),
        ],
        [("reasoning", "Hm"), ("output_text", "Yes"), ("reasoning", "Ah")],
    ),
    "agents blocked": Sample(
        "bedrock.agents",
        [
            traced(
                {
                    "guardrailTrace": {
                        "action": "INTERVENED",
                        "inputAssessments": [{"contentPolicy": {"filters": [{"action": "BLOCKED"}]}}],
                    }
                }
            ),
            said("Sorry."),
        ],
        [("output_text", "Sorry.")],
        "incomplete",
        "INTERVENED",
        "guardrail",
        "contentPolicy",
    ),
    "converse intervened": Sample(
        "bedrock.converse",
        [
            {"messageStart": {"role": "assistant"}},
            {
                "contentBlockDelta": {
                    "contentBlockIndex": 0,
                    "delta": {"text": "M"},
                    "amazon-bedrock-guardrailAction": "INTERVENED",
                }
            },
            {"messageStop": {"stopReason": "end_turn"}},
        ],
        [("output_text", "M")],
        "incomplete",
        "INTERVENED",
        "guardrail",
    ),
    "invoke model of Titan": Sample(
        "bedrock.invoke_model",
        [{"outputText": "Ye"}, {"outputText": "s", "completionReason": "FINISH"}],
        [("output_text", "Yes")],
    ),
    "invoke model blocked": Sample(
        "bedrock.invoke_model",
        [
            {
                "outputText": "Sorry.",
                "completionReason": "CONTENT_FILTERED",
                "amazon-bedrock-guardrailAction": "INTERVENED",
            },
        ],
        [("output_text", "Sorry.")],
        "incomplete",
        "CONTENT_FILTERED",
        "safety",
    ),
    "ollama error": Sample(
        "ollama.chat",
        [
            {"model": "m", "response": "<think>Hm", "done": False},
            {"model": "m", "done": False, "error": "out of memory"},
        ],
        [("reasoning", "Hm")],
        "failed",
        "error",
        "error",
    ),
    "cohere error": Sample(
        "cohere.chat",
        [
            {"type": "message-start", "id": "c1"},
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "x"}}},
            {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "broken"}},
        ],
        [("reasoning", "x")],
        "failed",
        "ERROR",
        "error",
    ),
    "responses error": Sample(
        "openai.responses",
        [
            {"type": "response.created", "response": {"model": "gpt-5"}},
            {"type": "response.in_progress", "response": {"model": "gpt-5"}},
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": {"type": "message", "content": "odd"},
            },
            {
                "type": "response.content_part.done",
                "output_index": 0,
                "content_index": 0,
                "part": {"type": "refusal", "refusal": "No"},
            },
            {"type": "error", "code": "server_error", "message": "later"},
        ],
        [],
        "failed",
        "server_error",
        "error",
    ),
    "responses withheld": Sample(
        "openai.responses",
        [
            {"type": "response.created", "response": {"model": "gpt-5"}},
            {
                "type": "response.done",
                "response": {
                    "status": "incomplete",
                    "incomplete_details": {
                        "reason": "content_filter",
                        "encrypted_content": "SECRET",
                        "list": [["x"], 1],
                    },
                    "output": [
                        {
                            "type": "reasoning",
                            "encrypted_content": "SECRET",
                            "content": [None],
                            "summary": "odd",
                        }
                    ],
                },
            },
        ],
        [],
        "incomplete",
        "content_filter",
        redacted=1,
    ),
    "chat thinking tags after a field": Sample(
        "openai.chat",
        [
            chunk({"content": " "}),
            chunk({"reasoning_content": "Hm"}),
            chunk({"content": "<think>Ye"}),
            chunk({"content": "s</think>"}, finish="stop"),
        ],
        [("reasoning", "Hm"), ("output_text", " <think>Yes</think>")],
    ),
    "chat reasoning tags of gpt-oss": Sample(
        "openai.chat",
        [
            {**each, "model": "openai.gpt-oss-20b-1:0"}
            for each in (
                chunk({"content": "<reasoning>Hm, </reasoning>"}),
                chunk({"content": "<reasoning>yes.</reas"}),
                chunk({"content": "oning>Yes <reasoning>"}),
                chunk({"content": "<reasoning>"}, finish="stop"),
            )
        ],
        [("reasoning", "Hm, yes."), ("output_text", "Yes <reasoning><reasoning>")],
    ),
    "chat reasoning tags of others": Sample(
        "openai.chat",
        [chunk({"content": "<reasoning>Hm</reasoning>Yes"}, finish="stop")],
        [("output_text", "<reasoning>Hm</reasoning>Yes")],
    ),
    "chat filter of the older versions": Sample(  # generated: recorded nowhere
        "openai.chat",
        [
            {
                "choices": [],
                "prompt_annotations": [{"content_filter_results": {"jailbreak": {"filtered": True}}}],
            },
            chunk({"content": "M"}, "stop", content_filter_result={"hate": {"filtered": True}}),
        ],
        [("output_text", "M")],
        "incomplete",
        "content_filter",
        "safety",
        "hate, jailbreak",
    ),
    "chat without resources": Sample(  # generated: recorded nowhere
        "openai.chat",
        [chunk({"content": "M"}), chunk(finish="insufficient_system_resource")],
        [("output_text", "M")],
        "failed",
        "insufficient_system_resource",
        "error",
    ),
    "gemini length and filter": Sample(
        "gemini.generate_content",
        [candidate({"text": "M"}, finish="MAX_TOKENS"), candidate(finish="ESCALATION", index=1)],
        [("output_text", "M")],
        "incomplete",
        "ESCALATION",
        "policy",
    ),
    "gemini language": Sample(  # generated: recorded nowhere
        "gemini.generate_content",
        [candidate({"text": "M"}), candidate(finish="LANGUAGE")],
        [("output_text", "M")],
        "failed",
        "LANGUAGE",
        "error",
    ),
    "ollama load": Sample(
        "ollama.chat",
        [
            {
                "model": "m",
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": "load",
            }
        ],
        [],
    ),
    "ollama thinking tags after a field": Sample(
        "ollama.chat",
        [
            {"model": "m", "message": {"role": "assistant", "thinking": "Hm"}, "done": False},
            {
                "model": "m",
                "message": {"role": "assistant", "content": "<think>"},
                "done": True,
                "done_reason": "stop",
            },
        ],
        [("reasoning", "Hm"), ("output_text", "<think>")],
    ),
    "responses filtered by Azure": Sample(  # generated: recorded nowhere
        "openai.responses",
        [
            {"type": "response.created", "response": {"model": "gpt-5"}},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "M"},
            {
                "type": "response.completed",
                "response": {
                    "status": "completed",
                    "incomplete_details": None,
                    "content_filters": [
                        {
                            "blocked": False,
                            "source_type": "prompt",
                            "content_filter_results": {"jailbreak": {"filtered": True}},
                        },
                        {
                            "blocked": True,
                            "source_type": "completion",
                            "content_filter_results": {
                                "violence": {"filtered": True, "severity": "high"},
                                "hate": {"filtered": False, "severity": "safe"},
                            },
                        },
                    ],
                },
            },
        ],
        [("output_text", "M")],
        "incomplete",
        "content_filter",
        None,
        "violence",
    ),
}

WHOLE_ANSWERS: dict[str, tuple[str, Object, Sequence[tuple[str, str]], str]] = {
    "chat": (
        "openai.chat",
        {
            "object": "chat.completion",
            "choices": [
                {"index": 0, "message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}
            ],
        },
        [("refusal", "No.")],
        "completed",
    ),
    "anthropic": (
        "anthropic.messages",
        {
            "type": "message",
            "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Yes"}],
            "stop_reason": "refusal",
        },
        [("reasoning", "Hm"), ("output_text", "Yes")],
        "incomplete",
    ),
    "gemini": (
        "gemini.generate_content",
        candidate({"text": "Yes"}, finish="STOP"),
        [("output_text", "Yes")],
        "completed",
    ),
    "converse": (
        "bedrock.converse",
        {
            "output": {
                "message": {
                    "content": [{"reasoningContent": {"reasoningText": {"text": "Hm"}}}, {"text": "Yes"}]
                }
            },
            "stopReason": "end_turn",
        },
        [("reasoning", "Hm"), ("output_text", "Yes")],
        "completed",
    ),
    "ollama": (
        "ollama.chat",
        {"model": "m", "response": "Yes", "done": True, "done_reason": "length"},
        [("output_text", "Yes")],
        "incomplete",
    ),
    "cohere": (
        "cohere.chat",
        {"message": {"content": [{"type": "text", "text": "Yes"}]}, "finish_reason": "COMPLETE"},
        [("output_text", "Yes")],
        "completed",
    ),
    "interactions": (
        "gemini.interactions",
        {"object": "interaction", "status": "completed", "outputs": [{"type": "text", "text": "Yes"}]},
        [("output_text", "Yes")],
        "completed",
    ),
    "responses": (
        "openai.responses",
        {
            "object": "response",
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}],
        },
        [],
        "completed",
    ),
}
"""Answers that are not streamed: dialect, body, texts, status."""

HTTP_ERRORS: dict[str, tuple[str, int, Object, str, str | None]] = {
    "anthropic filter": (
        "anthropic.messages",
        400,
        {"error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}},
        "blocked by content filtering policy",
        "safety",
    ),
    "azure": (
        "openai.chat",
        400,
        {
            "error": {
                "message": "The response was filtered",
                "code": "content_filter",
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
                },
            }
        },
        "content_filter",
        "safety",
    ),
    "deepseek": (
        "openai.chat",
        400,
        {"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}},
        "Content Exists Risk",
        "safety",
    ),
    "xai": (
        "openai.chat",
        403,
        {
            "code": "permission",
            "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
        },
        "Content violates usage guidelines",
        "policy",
    ),
    "alibaba": (
        "openai.chat",
        400,
        {"error": {"code": "data_inspection_failed", "message": "no"}},
        "data_inspection_failed",
        "safety",
    ),
    "gemini": (
        "gemini.generate_content",
        429,
        {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "no"}},
        "RESOURCE_EXHAUSTED",
        "error",
    ),
    "anthropic": (
        "anthropic.messages",
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "no"}},
        "overloaded_error",
        "error",
    ),
    "azure responses": (
        "openai.responses",
        400,
        {
            "error": {
                "message": "The response was filtered",
                "type": "invalid_request_error",
                "code": "content_filter",
                "content_filters": [
                    {"blocked": True, "content_filter_results": {"violence": {"filtered": True}}}
                ],
            }
        },
        "content_filter",
        "safety",
    ),
    "z.ai": (
        "openai.chat",
        400,
        {"error": {"code": "1301", "message": "System detected potentially unsafe or sensitive content"}},
        "1301",
        "safety",
    ),
    "minimax": (
        "openai.chat",
        422,
        {"error": {"type": "unprocessable_entity_error", "message": "input new_sensitive (1026)"}},
        "1026",
        "safety",
    ),
    "minimax status": (
        "openai.chat",
        400,
        {"base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}},
        "1027",
        "safety",
    ),
    "openrouter moderation": (
        "openai.chat",
        403,
        {
            "error": {
                "code": 403,
                "message": "Your input was flagged",
                "metadata": {
                    "reasons": ["violence", None, "hate"],
                    "flagged_input": "SECRET",
                    "provider_name": "OpenAI",
                    "model_slug": "x",
                },
            }
        },
        "403",
        "safety",
    ),
    "openrouter refusal": (
        "openai.chat",
        403,
        {"error": {"code": 403, "message": "no", "metadata": {"error_type": "refusal"}}},
        "refusal",
        "refusal",
    ),
    "openrouter malformed": (
        "openai.chat",
        400,
        {"error": {"code": 400, "message": "no", "metadata": {"error_type": "invalid_prompt"}}},
        "invalid_prompt",
        "error",
    ),
    "openrouter without a provider": (
        "openai.chat",
        502,
        {"error": {"code": 502, "message": "no"}},
        "502",
        "error",
    ),
    "unknown code": ("openai.chat", 400, {"error": {"code": "new_code", "message": "no"}}, "new_code", None),
    "unknown number": ("openai.chat", 403, {"error": {"code": 1301, "message": "no"}}, "1301", None),
}
"""Bodies of HTTP errors: dialect, status, body, reason, class of the reason."""
