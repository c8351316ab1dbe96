"""Test quirks of single providers and servers.

All cases are generated: they were written after documentation, sources and reports, since no public
recording has them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from deltaloom.dialects import Translator
from tests.client.dialects.reading import reading_of
from tests.client.dialects.streams import (
    TEXT,
    THINKING,
    Object,
    block,
    candidate,
    chunk,
    converse,
    frame,
    frames,
    json_lines,
    message,
    sse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

HM = ("reasoning", "Hm")
YES = ("output_text", "Yes")


class Quirk(NamedTuple):
    """A body, and the expected reading of its events."""

    body: bytes
    texts: Sequence[tuple[str, str]] = (HM, YES)
    """Kind and text of each part. All are closed if the response did not fail."""
    status: str = "completed"
    reason: str | None = None
    reason_class: str | None = None
    redacted: int = 0


def details(text: str, **more: Any) -> Object:
    """Return a delta with a fragment of reasoning as OpenRouter and MiniMax send it."""
    return {"reasoning_details": [{"type": "reasoning.text", "text": text, "index": 0}], **more}


def minimax(*deltas: Object, last: Object | None = None) -> bytes:
    """Return a stream of MiniMax, which may repeat the whole message at the end."""
    model = {"model": "MiniMax-M3"}
    chunks = [{**chunk(delta), **model} for delta in deltas]
    choice = {"index": 0, "finish_reason": "stop", **({"message": last} if last else {"delta": {}})}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], **model}
    return sse([*chunks, whole], done=True)


def named(messages: Sequence[Object], event: str = "") -> bytes:
    """Return server-sent events with the type only in the name, or with another name than their type."""
    lines = [
        (event or each["type"], {name: value for name, value in each.items() if event or name != "type"})
        for each in messages
    ]
    return b"".join(f"event: {name}\ndata: {json.dumps(each)}\n\n".encode() for name, each in lines)


THOUGHT = block(0, THINKING, [{"type": "thinking_delta", "thinking": "Hm"}])
ANSWER = block(1, TEXT, [{"type": "text_delta", "text": "Yes"}])
CHAT = sse([chunk({"reasoning": "Hm"}), chunk({"content": "Ye"}), chunk({"content": "s"}, "stop")], done=True)
SUMMARY: Object = {"output_index": 0, "summary_index": 0}
PLACE: Object = {"output_index": 0, "content_index": 0}

QUIRKS: dict[str, Quirk] = {
    # https://github.com/GCWing/OpenBitFun/pull/792, https://github.com/mozilla-ai/any-llm/pull/657
    "MiniMax repeats the message": Quirk(
        minimax(
            {"reasoning_content": "Hm"},
            {"content": "Yes"},
            last={"role": "assistant", "content": "Yes", "reasoning_content": "Hm"},
        )
    ),
    "MiniMax repeats the message with tags": Quirk(
        minimax({"content": "<think>Hm</think>Yes"}, last={"content": "<think>Hm</think>Yes"})
    ),
    "MiniMax says the answer only in the message": Quirk(
        minimax(details("Hm"), last={"content": "Yes", **details("Hm")})
    ),
    "MiniMax repeats a refusal": Quirk(
        minimax({"refusal": "No"}, last={"refusal": "No"}), [("refusal", "No")]
    ),
    # https://platform.minimax.io/docs/api-reference/text-openai-api
    "MiniMax sends snapshots": Quirk(
        minimax(details("H"), details("Hm"), details("Hm, so"), {"content": "Yes"}),
        [("reasoning", "Hm, so"), YES],
    ),
    "MiniMax stops sending snapshots": Quirk(
        minimax(details("H"), details("Hm"), details(", so"), {"content": "Yes"}),
        [("reasoning", "Hm, so"), YES],
    ),
    # https://github.com/MiniMax-AI/MiniMax-M2/issues/95
    "MiniMax sends fragments": Quirk(
        minimax(details("H"), details("m, "), details("Hm, H"), details("Hm, Hm")),
        [("reasoning", "Hm, Hm, HHm, Hm")],
    ),
    "others send no snapshots": Quirk(
        sse([chunk(details("H")), chunk(details("Hm")), chunk({"content": "Yes"}, "stop")]),
        [("reasoning", "HHm"), YES],
    ),
    "MiniMax finds the prompt sensitive": Quirk(
        sse([{"id": "1", "choices": None, "base_resp": {"status_code": 1026, "status_msg": "sensitive"}}]),
        [],
        "failed",
        "1026",
        "safety",
    ),
    "MiniMax finds the answer sensitive": Quirk(
        sse([chunk({"content": "Yes"}), {"base_resp": {"status_code": 1027}, "choices": []}], done=True),
        [YES],
        "failed",
        "1027",
        "safety",
    ),
    "MiniMax finds nothing": Quirk(
        sse([{**chunk({"content": "Yes"}, "stop"), "base_resp": {"status_code": 0, "status_msg": ""}}]), [YES]
    ),
    "DeepSeek": Quirk(
        sse(
            [
                chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
                chunk({"content": None, "reasoning_content": "Hm"}),
                chunk({"content": "Yes", "reasoning_content": None}),
                chunk({"content": "", "reasoning_content": None}, "stop"),
            ],
            done=True,
        )
    ),
    # https://github.com/vllm-project/vllm/issues/27752
    "vLLM has two names for reasoning": Quirk(
        sse([chunk({"reasoning": "Hm", "reasoning_content": "Hm"}), chunk({"content": "Yes"}, "stop")])
    ),
    "a proxy changes the name of the reasoning": Quirk(
        sse([chunk({"reasoning_content": "H"}), chunk({"reasoning": "m"}), chunk({"content": "Yes"}, "stop")])
    ),
    "OpenRouter says the same three times": Quirk(
        sse([chunk(details("Hm", reasoning="Hm", reasoning_content="Hm")), chunk({"content": "Yes"}, "stop")])
    ),
    # groq.types.chat.ChatCompletionChunk: `x_groq.error`
    "Groq stops early": Quirk(
        sse([chunk({"content": "Yes"}), {**chunk(), "x_groq": {"id": "r", "error": "over capacity"}}]),
        [YES],
        "failed",
        "error",
        "error",
    ),
    "Groq in its first and last chunk": Quirk(
        sse(
            [
                {**chunk({"reasoning": "Hm"}), "x_groq": {"id": "r"}},
                {**chunk({"content": "Yes"}, "stop"), "x_groq": {"id": "r", "usage": {"total_tokens": 1}}},
            ]
        )
    ),
    "Mistral closes a thought": Quirk(
        sse(
            [
                chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "H"}]}]}),
                chunk({"content": [{"type": "thinking", "thinking": "m", "closed": True}]}),
                chunk(
                    {"content": [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "Ye"}]}
                ),
                chunk({"content": "s"}, "stop"),
            ]
        )
    ),
    # https://github.com/openai/openai-python/issues/1677
    "Azure's asynchronous filter": Quirk(
        sse(
            [
                {
                    "choices": [],
                    "id": "",
                    "model": "",
                    "object": "",
                    "prompt_filter_results": [
                        {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}
                    ],
                },
                chunk({"reasoning_content": "Hm"}),
                chunk({"content": "Yes"}),
                {
                    "id": "",
                    "model": "",
                    "object": "",
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": None,
                            "content_filter_offsets": {"check_offset": 1, "start_offset": 0, "end_offset": 9},
                            "content_filter_results": {"hate": {"filtered": False}},
                        }
                    ],
                },
                chunk({}, "stop", content_filter_results={"error": {"code": "content_filter_error"}}),
            ],
            done=True,
        )
    ),
    "the answers of several choices interleave with tools": Quirk(
        sse(
            [
                chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]}),
                chunk({"reasoning": "Hm"}, index=1),
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}, "tool_calls"),
                chunk({"content": "Yes"}, "stop", 1),
                {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": {}},
            ],
            done=True,
        )
    ),
    "a refusal with an empty content": Quirk(
        sse([chunk({"content": "", "refusal": "No"}), chunk({"content": None, "refusal": None}, "stop")]),
        [("refusal", "No")],
    ),
    # framing
    "lines end with CR": Quirk(CHAT.replace(b"\n", b"\r")),
    "a byte order mark": Quirk(b"\xef\xbb\xbf" + CHAT),
    "comments keep the connection alive": Quirk(CHAT.replace(b"\n\n", b"\n\n: OPENROUTER PROCESSING\n\n")),
    "done twice": Quirk(CHAT + b"data: [DONE]\n\n"),
    "done is missing": Quirk(CHAT.removesuffix(b"data: [DONE]\n\n")),
    "ids, retries and no spaces": Quirk(b"id: 1\nretry: 9\n" + CHAT.replace(b"data: ", b"data:")),
    "a message in two lines": Quirk(CHAT.replace(b', "model"', b',\ndata: "model"')),
    # names of events
    "the type is only in the event's name": Quirk(named(message(THOUGHT, ANSWER))),
    "the event's name contradicts the type": Quirk(named(message(THOUGHT, ANSWER), "message_stop")),
    # errors in the middle of a stream
    "error of OpenAI": Quirk(
        sse([chunk({"content": "Yes"}), {"error": {"message": "x", "type": "server_error", "code": None}}]),
        [YES],
        "failed",
        "server_error",
        "error",
    ),
    "error of Mistral": Quirk(
        sse([chunk({"content": "Yes"}), {"object": "error", "message": "x", "type": "e", "code": "3000"}]),
        [YES],
        "failed",
        "e",
    ),
    "error of xAI": Quirk(
        sse(
            [
                chunk({"content": "Yes"}),
                {"code": "permission", "error": "Content violates usage guidelines. SAFETY_CHECK_TYPE_BIO"},
            ]
        ),
        [YES],
        "failed",
        "Content violates usage guidelines",
        "policy",
    ),
    "error of Anthropic": Quirk(
        sse(
            [*message(THOUGHT)[:-2], {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}]
        ),
        [HM],
        "failed",
        "overloaded_error",
        "error",
    ),
    "error of Gemini": Quirk(
        sse([candidate({"text": "Yes"}), {"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}]),
        [YES],
        "failed",
        "UNAVAILABLE",
        "error",
    ),
    "error of Bedrock": Quirk(
        frames(converse({"text": "Yes"})[:2])
        + frame("throttlingException", {"message": "x"}, ":exception-type"),
        [YES],
        "failed",
        "throttlingException",
        "error",
    ),
    "error of Cohere": Quirk(
        sse(
            [
                {"type": "message-start", "id": "c"},
                {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Yes"}}}},
                {"type": "message-end", "delta": {"error": "x", "finish_reason": "ERROR"}},
            ]
        ),
        [YES],
        "failed",
        "ERROR",
        "error",
    ),
    "error of Ollama": Quirk(
        json_lines([{"model": "m", "message": {"content": "Yes"}, "done": False}, {"error": "x"}]),
        [YES],
        "failed",
        "error",
        "error",
    ),
    "error of Interactions": Quirk(
        sse(
            [
                {"event_type": "interaction.created", "interaction": {"id": "v"}},
                {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "Yes"}},
                {"event_type": "error", "error": {"code": "resource_exhausted", "message": "x"}},
            ]
        ),
        [YES],
        "failed",
        "resource_exhausted",
        "error",
    ),
    # google.genai 3.6
    "Interactions of the older beta": Quirk(
        sse(
            [
                {"event_type": "content.start", "index": 0, "content": {"type": "thought"}},
                {
                    "event_type": "content.delta",
                    "index": 0,
                    "delta": {"type": "thought_summary", "content": {"text": "Hm"}},
                },
                {"event_type": "content.stop", "index": 0},
                {"event_type": "content.delta", "index": 1, "delta": {"type": "text", "text": "Yes"}},
                {"event_type": "content.stop", "index": 1},
                {"event_type": "interaction.complete", "interaction": {"id": "v"}},
            ]
        ),
        [("reasoning_summary", "Hm"), YES],
    ),
    "Interactions that were cancelled": Quirk(
        sse(
            [
                {"event_type": "interaction.created"},
                {"event_type": "interaction.cancelled", "interaction": {}},
            ]
        ),
        [],
        "cancelled",
        "cancelled",
    ),
    "Interactions at their limit": Quirk(
        sse(
            [
                {"event_type": "interaction.created"},
                {"event_type": "interaction.status_update", "status": "requires_continuation"},
            ]
        ),
        [],
        "incomplete",
        "requires_continuation",
        "length",
    ),
    # others
    "Cohere plans its tools": Quirk(
        sse(
            [
                {"type": "message-start", "id": "c"},
                {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I "}}},
                {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "will"}}},
                {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": {"id": "x"}}}},
                {"type": "tool-call-end", "index": 0},
                {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
            ]
        ),
        [("reasoning", "I will")],
    ),
    "Cohere's plan in a whole answer": Quirk(
        json.dumps(
            {"message": {"tool_plan": "I will", "tool_calls": []}, "finish_reason": "TOOL_CALL"}
        ).encode(),
        [("reasoning", "I will")],
    ),
    # https://github.com/BerriAI/litellm/issues/20822
    "Ollama thinks in many lines": Quirk(
        json_lines(
            [
                *(
                    {"model": "m", "message": {"thinking": each, "content": ""}, "done": False}
                    for each in "Hm"
                ),
                {"model": "m", "message": {"content": "Yes"}, "done": True, "done_reason": "stop"},
            ]
        )
    ),
    "Bedrock redacts a thought": Quirk(
        frames(
            converse({"reasoningContent": {"redactedContent": "eA=="}}, {"text": "Yes"}, stop="stop_sequence")
        ),
        [YES],
        redacted=1,
    ),
    "Gemini blocks the prompt": Quirk(
        sse([{"promptFeedback": {"blockReason": "JAILBREAK"}, "usageMetadata": {}, "modelVersion": "g"}]),
        [],
        "incomplete",
        "JAILBREAK",
        "policy",
    ),
    "Anthropic pauses to compact": Quirk(sse(message(THOUGHT, ANSWER, stop="compaction"))),
    "Responses have reasoning and its summary": Quirk(
        sse(
            [
                {"type": "response.created", "response": {"id": "r"}},
                {"type": "response.reasoning_summary_text.delta", "delta": "H", **SUMMARY},
                {"type": "response.reasoning_text.delta", "delta": "Hm", **PLACE},
                {"type": "response.reasoning_summary_text.done", "text": "H", **SUMMARY},
                {"type": "response.reasoning_text.done", "text": "Hm", **PLACE},
                {"type": "response.completed", "response": {"status": "completed"}},
            ]
        ),
        [("reasoning_summary", "H"), HM],
    ),
}


@pytest.mark.parametrize("name", QUIRKS)
def test_a_quirk(name: str) -> None:
    """Give the texts once, the end and its reason."""
    quirk = QUIRKS[name]
    translator = Translator()
    found = reading_of(translator.feed(quirk.body) + translator.end())
    assert found.texts == list(quirk.texts)
    assert found.status == quirk.status
    if quirk.status != "failed":
        assert found.closed == found.texts
    assert (found.details["reason"], found.details.get("reason_class")) == (quirk.reason, quirk.reason_class)
    assert found.redacted == quirk.redacted
