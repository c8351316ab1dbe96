"""Test that callers of SDKs get the same with a hook and with `tee`, and that the copy is complete."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from tests.client.dialects.streams import HTTP_ERRORS, SAMPLES, WHOLE_ANSWERS, body_of
from tests.client.teeing.recorder import expected
from tests.receivers import receiving
from tests.sdks.calls import CANARY
from tests.sdks.programs import run_program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.receivers import Behaviour

pytestmark = pytest.mark.prove

CALLS = {
    "openai chat": ("openai.chat", "/v1/chat/completions"),
    "openai responses": ("openai.responses", "/v1/responses"),
    "anthropic": ("anthropic.messages", "/v1/messages"),
    "google-genai": ("gemini.generate_content", "/models/m:streamGenerateContent"),
    "mistralai": ("openai.chat", "/v1/chat/completions"),
}
"""Dialect and path of what each SDK calls."""

_MISTRAL = {"chat content as a list", "chat text after the finish"}
"""Samples of which Mistral's SDK has all fields."""

_NOT_FOR_GOOGLE = {"gemini", "gemini inside a response"}
"""Samples that Google's SDK cannot parse."""

_KEPT_BY_SDKS = {"chat one choice without an end", "chat error as a string", "gemini safety"}
"""Samples whose end, error or `finishMessage` SDKs keep to themselves, so that `tee` does not see it."""


def samples_for(sdk: str) -> list[str]:
    """Return the streams for an SDK."""
    dialect = CALLS[sdk][0]
    names = [name for name, sample in SAMPLES.items() if sample.dialect == dialect]
    if sdk == "mistralai":
        return [name for name in names if name in _MISTRAL]
    return [name for name in names if name not in _NOT_FOR_GOOGLE]


async def model_of(request: web.Request) -> str:
    """Return the name of the model: Google's SDK has it in the path, the others in the body."""
    data = await request.json()
    return str(data.get("model") or request.path.partition("/models/")[2].partition(":")[0])


async def answer(request: web.Request) -> web.StreamResponse:
    """Give the answer that the name of the model asks for: kind and name, joined with a dot."""
    data = await request.json()
    assert CANARY in json.dumps(data)
    assert CANARY in str(request.headers)
    kind, _, name = (await model_of(request)).partition(".")
    name = name.replace("_", " ")
    if kind == "error":
        return web.json_response(HTTP_ERRORS[name][2], status=HTTP_ERRORS[name][1])
    if kind == "whole":
        return web.json_response(WHOLE_ANSWERS[name][1])
    body, headers = body_of(SAMPLES[name]), {"Content-Type": "text/event-stream"}
    if kind == "gzip":
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for start in range(0, len(body), 150):
        await response.write(body[start : start + 150])
    return response


async def outcomes(
    sdk: str,
    modes: Sequence[str],
    models: Sequence[str],
    behaviour: Behaviour = answer,
    **options: Any,
) -> list[Any]:
    """Call an SDK in each mode, sync and async; return model, mode and outcome of each call."""
    tasks: list[dict[str, Any]] = [
        {"sdk": sdk, "model": model.replace(" ", "_"), "mode": mode, "async": is_async, "stream": True}
        | {"take": -1, **options}
        for model in models
        for is_async in (False, True)
        for mode in modes
    ]
    async with receiving(behaviour) as server:
        calls = json.dumps([{**task, "url": server.url} for task in tasks])
        output = await run_program(Path(__file__).with_name("calls.py"), calls)
    lines = [json.loads(line) for line in output.splitlines()]
    assert len(lines) == len(tasks)
    assert all(line["faults"] == {} for line in lines)
    assert CANARY not in json.dumps([line["streams"] for line in lines])
    return [
        (task["model"].replace("_", " "), task["mode"], line) for task, line in zip(tasks, lines, strict=True)
    ]


def copied(outcome: Any) -> list[Any]:
    """Return the copied events, with the response id `r`."""
    (stream,) = outcome["streams"]
    assert stream["ended"]
    assert stream["context"]["tenant"] == "acme"
    events: list[Any] = json.loads(json.dumps(stream["events"]).replace(stream["response_id"], "r"))
    return events


@pytest.mark.parametrize("sdk", CALLS)
async def test_a_stream_is_the_same_and_is_copied(sdk: str) -> None:
    """Yield the same events or raise the same error, and copy what the provider sent."""
    kinds = ("plain", "gzip")
    models = [f"{kinds[number % 2]}.{name}" for number, name in enumerate(samples_for(sdk))]
    found = await outcomes(sdk, ("plain", "hook", "tee"), models)
    without: Any = None
    different = []
    for model, mode, outcome in found:
        if mode == "plain":
            without = outcome
            assert without["streams"] == []
            assert without["result"] or without["error"]
            continue
        assert (outcome["result"], outcome["error"]) == (without["result"], without["error"]), (model, mode)
        name = model.partition(".")[2]
        if mode == "tee" and name in _KEPT_BY_SDKS:
            continue
        if copied(outcome) != expected(body_of(SAMPLES[name]), path=CALLS[sdk][1]):
            different.append((model, mode, outcome["error"]))
    assert different == []


@pytest.mark.parametrize(
    ("sdk", "name"),
    [
        ("openai chat", "chat"),
        ("openai responses", "responses"),
        ("anthropic", "anthropic"),
        ("google-genai", "gemini"),
        ("mistralai", "chat"),
    ],
)
async def test_an_answer_that_is_not_streamed(sdk: str, name: str) -> None:
    """Return the same answer, and copy it."""
    found = await outcomes(sdk, ("plain", "hook", "all"), [f"whole.{name}"], stream=False)
    body = json.dumps(WHOLE_ANSWERS[name][1]).encode()
    without: Any = None
    for _, mode, outcome in found:
        if mode == "plain":
            without = outcome
            continue
        assert (outcome["result"], outcome["error"]) == (without["result"], without["error"])
        assert copied(outcome) == expected(body, path=CALLS[sdk][1])


@pytest.mark.parametrize(
    ("sdk", "name"),
    [
        ("openai chat", "azure"),
        ("openai chat", "xai"),
        ("anthropic", "anthropic filter"),
        ("mistralai", "azure"),
    ],
)
async def test_an_error_that_is_raised(sdk: str, name: str) -> None:
    """Raise the same error, and copy a policy's 4xx, which no stream shows."""
    found = await outcomes(sdk, ("plain", "hook"), [f"error.{name}"])
    for (_, _, without), (_, _, outcome) in zip(found[::2], found[1::2], strict=True):
        assert outcome["error"] == without["error"] is not None
        end = copied(outcome)[-1]["response"]
        assert (end["status"], end["error"]["code"]) == ("failed", HTTP_ERRORS[name][3])


@pytest.mark.parametrize("sdk", CALLS)
async def test_a_caller_that_leaves(sdk: str) -> None:
    """End the copy as cancelled if the caller leaves after the first event."""
    name = samples_for(sdk)[0]
    found = await outcomes(sdk, ("hook", "tee"), [f"plain.{name}"], take=1)
    for _, mode, outcome in found:
        assert len(outcome["result"]) == 1
        # The hook may have seen the whole body: SDKs read more bytes than the caller asked for.
        ends = {"cancelled"} if mode == "tee" else {"cancelled", SAMPLES[name].status}
        if outcome["streams"]:
            assert copied(outcome)[-1]["response"]["status"] in ends
