"""Run the recipes of docs/connect.md against a server that stands for the provider."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from deltaloom import StreamNames
from tests.client.dialects.streams import chunk, converse, frames, sse
from tests.docs.scripts import EXAMPLES
from tests.receivers import receiving
from tests.sdks.programs import run_program

if TYPE_CHECKING:
    from redis.asyncio import Redis

pytestmark = pytest.mark.prove

RECIPES = {
    "tee_openai.py": "openai.responses",
    "instrument_openai.py": "openai.chat",
    "openai_agents.py": "openai.responses",
    "pydantic_ai_chat.py": "openai.chat",
    "langchain_chat.py": "openai.chat",
    "litellm_chat.py": "openai.chat",
    "boto3_converse.py": "bedrock.converse",
}
"""Dialect that each recipe copies. Those that serve a model are in other tests."""

_MESSAGE = {"role": "assistant", "content": "Yes", "refusal": None}
_ITEM = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Yes", "annotations": [], "logprobs": []}],
}


def response_object(status: str, *items: Any) -> dict[str, Any]:
    """Return a response as the Responses API has it."""
    fixed = {"created_at": 1, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
    return {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-5",
        "status": status,
        "output": items,
        **fixed,
    }


_PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
RESPONSES = sse(
    [
        {"type": "response.created", "sequence_number": 0, "response": response_object("in_progress")},
        {
            "type": "response.output_text.delta",
            "sequence_number": 1,
            "delta": "Yes",
            "logprobs": [],
            **_PLACE,
        },
        {"type": "response.output_text.done", "sequence_number": 2, "text": "Yes", "logprobs": [], **_PLACE},
        {"type": "response.output_item.done", "sequence_number": 3, "output_index": 0, "item": _ITEM},
        {"type": "response.completed", "sequence_number": 4, "response": response_object("completed", _ITEM)},
    ]
)
CHAT = sse([chunk({"role": "assistant", "content": "Yes"}) | {"created": 1}, chunk(finish="stop")], done=True)
WHOLE_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5",
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
}


async def provider(request: web.Request) -> web.StreamResponse:
    """Answer as the provider of a recipe does."""
    data = await request.json()
    if request.path.endswith("converse-stream"):
        body, content_type = frames(converse({"text": "Yes"})), "application/vnd.amazon.eventstream"
    elif request.path.endswith("/responses"):
        body, content_type = RESPONSES, "text/event-stream"
    elif data.get("stream"):
        body, content_type = CHAT, "text/event-stream"
    else:
        body, content_type = json.dumps(WHOLE_CHAT).encode(), "application/json"
    return web.Response(body=body, content_type=content_type)


def test_every_recipe_is_run() -> None:
    """Include each recipe that calls a model."""
    found = {path.name for path in (EXAMPLES / "recipes").glob("*.py")}
    assert found - {"serve_fastapi.py", "copied_vllm.py"} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
async def test_a_recipe_copies_what_its_framework_gets(redis: Redis, redis_url: str, name: str) -> None:
    """Run a recipe, and find the events of one response in Redis."""
    deltas = StreamNames().deltas
    await redis.delete(deltas)
    async with receiving(provider) as server:
        environment = {
            "REDIS_URL": redis_url,
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "OPENAI_API_KEY": "key",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": server.url,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        await run_program(EXAMPLES / "recipes" / name, **environment)
    entries: Any = await redis.xrange(deltas)
    await redis.delete(deltas)
    events: list[Any] = []
    for _, fields in entries:
        found = json.loads(fields[b"event"])
        events += found if isinstance(found, list) else [found]
    dialects = {fields[b"dialect"].decode() for _, fields in entries if b"dialect" in fields}
    assert dialects == {RECIPES[name]}
    assert len({fields[b"response_id"] for _, fields in entries}) == 1
    assert {event["type"] for event in events} >= {"response.created", "response.output_text.done"}
    assert events[-1]["type"] == "response.completed"
