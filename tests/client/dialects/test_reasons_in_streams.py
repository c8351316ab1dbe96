"""Test each row of the table of reasons in a generated stream, since no recording has most of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from deltaloom.dialects import Translator
from deltaloom.reasons import REASONS, Reason
from tests.client.dialects.reading import reading_of
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

if TYPE_CHECKING:
    from collections.abc import Callable

WITHOUT_TRANSLATOR = {"vercel", "deltaloom"}
"""Providers in the table whose values come from no translator."""


class Made(NamedTuple):
    """A body with a reason."""

    body: bytes
    dialect: str
    status: int = 200


def _frame(value: str) -> bytes:
    return frame(value, {"message": "boom"}, ":exception-type")


def _end(value: str) -> Object:
    return {"type": "message-end", "delta": {"finish_reason": value}}


def _response(value: str) -> Object:
    response: Object = {"status": "incomplete", "incomplete_details": {"reason": value}}
    return {"type": "response.incomplete", "response": response}


def _error(**error: Any) -> bytes:
    return sse([{"error": {"message": "boom", **error}}])


def _intervened(value: str) -> bytes:
    return json_lines([{**each, "amazon-bedrock-guardrailAction": value} for each in converse({"text": "a"})])


def _agent(value: str) -> bytes:
    trace = {"guardrailTrace": {"action": value, "inputAssessments": [{"action": "BLOCKED"}]}}
    return json_lines([{"trace": {"agentId": "A1", "trace": trace}}])


MAKERS: dict[str, Callable[[str], Made]] = {
    "incomplete_details.reason": lambda value: Made(sse([_response(value)]), "openai.responses"),
    "error.code": lambda value: Made(_error(code=value), "openai.chat"),
    "finish_reason": lambda value: Made(sse([chunk({"content": "a"}, value)], done=True), "openai.chat"),
    "error.innererror.code": lambda value: Made(_error(innererror={"code": value}), "openai.chat", 400),
    "stop_reason": lambda value: Made(sse(message(block(0, TEXT, []), stop=value)), "anthropic.messages"),
    "error.type": lambda value: Made(
        sse([{"type": "error", "error": {"type": value, "message": "boom"}}]), "anthropic.messages"
    ),
    "finishReason": lambda value: Made(
        sse([candidate({"text": "a"}, finish=value)]), "gemini.generate_content"
    ),
    "promptFeedback.blockReason": lambda value: Made(
        sse([{"promptFeedback": {"blockReason": value}}]), "gemini.generate_content"
    ),
    "error.status": lambda value: Made(_error(code=400, status=value), "gemini.generate_content"),
    "interaction.status": lambda value: Made(
        sse([{"event_type": "interaction.completed", "interaction": {"status": value}}]),
        "gemini.interactions",
    ),
    "stopReason": lambda value: Made(frames(converse({"text": "a"}, stop=value)), "bedrock.converse"),
    "amazon-bedrock-guardrailAction": lambda value: Made(_intervened(value), "bedrock.converse"),
    "guardrailTrace.action": lambda value: Made(_agent(value), "bedrock.agents"),
    "completionReason": lambda value: Made(
        invoked([{"outputText": "a", "completionReason": value}]), "bedrock.invoke_model"
    ),
    ":exception-type": lambda value: Made(_frame(value), "bedrock.converse"),
    "error.metadata.error_type": lambda value: Made(_error(metadata={"error_type": value}), "openai.chat"),
    "base_resp.status_code": lambda value: Made(
        sse([{"choices": None, "base_resp": {"status_code": int(value), "status_msg": "boom"}}]),
        "openai.chat",
    ),
    "done_reason": lambda value: Made(
        json_lines([{"model": "m", "message": {"content": "a"}, "done": True, "done_reason": value}]),
        "ollama.chat",
    ),
}
"""Bodies by the field of the reason."""


def made(row: Reason) -> Made:
    """Return a body with the reason of a row."""
    if row.provider == "cohere":
        return Made(sse([_end(row.value)]), "cohere.chat")
    return MAKERS[row.field](row.value)


@pytest.mark.parametrize("provider", sorted({row.provider for row in REASONS} - WITHOUT_TRANSLATOR))
def test_each_reason_of_a_provider(provider: str) -> None:
    """Give the provider's value and its class. A worker adds the class of the Responses API's."""
    for row in REASONS:
        if row.provider != provider:
            continue
        body, dialect, status = made(row)
        translator = Translator(dialect, provider=provider, status=status)
        found = reading_of(translator.feed(body) + translator.end())
        assert found.status != "completed", row
        assert found.details["reason"] == row.value, row
        if dialect != "openai.responses" and row.reason_class not in {"unknown", "cancelled"}:
            assert found.details.get("reason_class") == row.reason_class, row
        elif row.reason_class == "unknown":
            assert "reason_class" not in found.details, row
