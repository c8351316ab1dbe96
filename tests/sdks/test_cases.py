"""Test what docs/connect.md says about six cases, with real SDKs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.client.dialects.streams import block, chunk, message, sse
from tests.receivers import receiving
from tests.sdks.programs import run_program
from tests.sdks.test_recipes import response_object

pytestmark = pytest.mark.prove

CANARY = "canary of a tool"
_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": CANARY}}
_PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
AGENT_CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "weather",
    "arguments": "{}",
    "status": "completed",
}
_FALLBACK = block(0, {"type": "fallback", "from": {"model": "sonata-5"}, "to": {"model": "sonata-4"}}, ())


def numbered(*events: dict[str, Any]) -> bytes:
    """Return the events of the Responses API as a body, numbered from 0."""
    return sse([{**event, "sequence_number": number} for number, event in enumerate(events)])


def whole_response(response_id: str, *items: dict[str, Any]) -> bytes:
    """Return the stream of a response of the Responses API."""
    begun = {"type": "response.created", "response": {**response_object("in_progress"), "id": response_id}}
    events = [
        event
        for index, item in enumerate(items)
        for event in (
            {"type": "response.output_item.added", "output_index": index, "item": item},
            {"type": "response.output_item.done", "output_index": index, "item": item},
        )
    ]
    over = {
        "type": "response.completed",
        "response": {**response_object("completed", *items), "id": response_id},
    }
    return numbered(begun, *events, over)


RESUMED = [
    {"type": "response.created", "sequence_number": 0, "response": response_object("in_progress")},
    {"type": "response.refusal.delta", "sequence_number": 1, "delta": "I'm sorry,", **_PLACE},
    {"type": "response.refusal.delta", "sequence_number": 2, "delta": " but no.", **_PLACE},
    {"type": "response.refusal.done", "sequence_number": 3, "refusal": "I'm sorry, but no.", **_PLACE},
    {"type": "response.completed", "sequence_number": 4, "response": response_object("completed")},
]
ANSWER = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Sunny", "annotations": [], "logprobs": []}],
}

BODIES: dict[str, bytes] = {
    "choices": sse(
        [
            chunk({"content": "a"}),
            chunk({"refusal": "No."}, index=1),
            chunk(finish="stop"),
            chunk(finish="content_filter", index=1),
        ],
        done=True,
    ),
    "tool-call": sse([chunk({"tool_calls": [{"index": 0, **_CALL}]}), chunk(finish="tool_calls")], done=True),
    "tool-result": sse([chunk({"content": "Sunny"}), chunk(finish="stop")], done=True),
    "whole": sse([chunk({"content": "Yes"}), chunk(finish="stop")], done=True),
    "resumed": sse(RESUMED),
    "fallback": sse(
        message(_FALLBACK, block(1, {"type": "text", "text": ""}, [{"type": "text_delta", "text": "Yes"}]))
    ),
}


class Provider:
    """A provider that answers by the name of the model."""

    def __init__(self) -> None:
        self._requests: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.method == "GET":
            return self._known(request)
        model = (await request.json())["model"]
        self._requests.append(model)
        times = self._requests.count(model)
        if model == "retried" and times == 1:
            error = {"error": {"message": "slow down"}}
            return web.json_response(error, status=429, headers={"Retry-After": "0"})
        if model == "background":
            return web.json_response(response_object("queued"))
        if model == "broken":
            return await self._broken(request)
        body = BODIES.get(model, BODIES["whole"])
        if model == "agent":
            body = whole_response(f"resp_{times}", AGENT_CALL if times % 2 else ANSWER)
        return web.Response(body=body, content_type="text/event-stream")

    def _known(self, request: web.Request) -> web.Response:
        """Return a response that was begun before: the rest of its stream, or its object."""
        if "stream" in request.query:
            return web.Response(body=sse(RESUMED[2:]), content_type="text/event-stream")
        return web.json_response(response_object("completed"))

    async def _broken(self, request: web.Request) -> web.StreamResponse:
        """Break the connection after the first chunk."""
        headers = {"Content-Type": "text/event-stream", "Content-Length": "9999"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(sse([chunk({"content": "Ye"})]))
        assert request.transport
        request.transport.close()
        return response


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Make all requests, and return what was copied."""

    async def run() -> str:
        async with receiving(Provider().answer) as server:
            env = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "key"}
            return await run_program(Path(__file__).with_name("cases.py"), **env)

    copied: dict[str, Any] = json.loads(asyncio.run(run()))
    return copied


def ends(streams: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """Return status and reason of each response, which has ended."""
    assert all(stream["ended"] for stream in streams)
    assert len({stream["response_id"] for stream in streams}) == len(streams)
    over = [stream["events"][-1]["response"] for stream in streams]
    reasons = [
        each.get("incomplete_details", {}).get("reason") or each.get("error", {}).get("code") for each in over
    ]
    return [(each["status"], reason) for each, reason in zip(over, reasons, strict=True)]


def texts(stream: dict[str, Any]) -> list[tuple[int, str]]:
    """Return index and text of each part that was closed by its own event."""
    names = ("text", "refusal")
    return [(each["output_index"], each[name]) for each in stream["events"] for name in names if name in each]


def test_several_choices(found: dict[str, Any]) -> None:
    """Give each choice a part of its own, and end the response with the gravest end."""
    (stream,) = found["choices"]
    assert texts(stream) == [(0, "a"), (1, "No.")]
    assert ends(found["choices"]) == [("incomplete", "content_filter")]


def test_tools(found: dict[str, Any]) -> None:
    """Copy the texts of two responses, but no arguments and no results of tools."""
    for case in ("tools", "agents_with_hook", "agents_with_tee"):
        assert ends(found[case]) == [("completed", None)] * 2
        assert CANARY not in json.dumps(found[case])
    assert texts(found["tools"][1]) == [(0, "Sunny")]


def test_retries(found: dict[str, Any]) -> None:
    """Copy one response for a repeated request, and two if the program asks again after a break."""
    assert ends(found["retries"]) == [("completed", None)]
    assert ends(found["breaks"]) == [("failed", "stream_interrupted"), ("completed", None)]
    assert {stream["context"]["reference"] for stream in found["breaks"]} == {"request-1"}


def test_resumed_streams(found: dict[str, Any]) -> None:
    """Copy the rest of a stream only with `tee`, as a response of its own with the provider's numbers."""
    _, rest = found["resumed"]
    assert ends(found["resumed"]) == [("completed", None)] * 2
    numbers = [event["sequence_number"] for event in rest["events"] if "delta" in event]
    assert numbers == [2]
    assert texts(rest) == [(0, "I'm sorry, but no.")]


def test_background_responses(found: dict[str, Any]) -> None:
    """Copy none: its first answer has no end, and the last one is got by GET."""
    assert found["background"] == []


def test_several_models(found: dict[str, Any]) -> None:
    """Report the other model, and keep the one that the stream named first."""
    (stream,) = found["fallback"]
    assert stream["context"]["model"] == "claude-5"
    (event,) = [each for each in stream["events"] if each["type"] == "deltaloom.response.fallback"]
    assert (event["from_model"], event["to_model"]) == ("sonata-5", "sonata-4")


def test_agents(found: dict[str, Any]) -> None:
    """Begin a new response with each request, with the hook and with `tee`."""
    for case in ("agents_with_hook", "agents_with_tee"):
        calls, answer = found[case]
        assert calls["context"]["upstream_response_id"] != answer["context"]["upstream_response_id"]
        assert "Sunny" in json.dumps(answer)
    assert found["faults"] == {}
