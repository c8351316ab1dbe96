"""Test that SDKs give their callers the same with a copy, and that the copy has what was recorded.

The recordings are in the folders that the environment variables RECORDED_DIALECTS and RECORDINGS name. Each
20th one of a dialect is played; RECORDED_CALLS_STEP is another number, such as 1. A sample is always played.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from deltaloom.dialects import Translator
from tests.client.dialects import oracle
from tests.client.dialects.streams import SAMPLES, body_of, sse
from tests.client.dialects.test_oracle import bodies
from tests.sdks.test_calls import CALLS, copied, model_of, outcomes

if TYPE_CHECKING:
    from collections.abc import Mapping

_DONE = "[DONE]"
_AT_ONCE = 20
"""Recordings for one process, whose time is limited."""

pytestmark = pytest.mark.prove

STEP = int(os.environ.get("RECORDED_CALLS_STEP", "20"))
SAMPLE = {
    "openai chat": "chat refusal",
    "openai responses": "responses",
    "anthropic": "anthropic",
    "google-genai": "gemini language",
    "mistralai": "chat content as a list",
}
"""A sample for each SDK, of which the SDK drops nothing."""

_VALIDATION = ("ValidationError", "ResponseValidationError")
"""Errors of SDKs that cannot parse an event. They read no further, so the copy ends there too."""


@cache
def recordings() -> Mapping[str, list[tuple[str, bytes]]]:
    """Return the names and bodies of recordings by dialect, as server-sent events."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for name, recorded in bodies():
        translator = Translator()
        translator.feed(recorded)
        body = recorded
        if name.endswith(".jsonl"):
            messages = [each for each in oracle.messages_of(recorded) if _DONE not in each]
            body = sse(messages, done=translator.dialect == "openai.chat")
        found.setdefault(str(translator.dialect), []).append((name, body))
    return found


def played(sdk: str) -> list[tuple[str, bytes]]:
    """Return what is played to an SDK. Mistral's drops others' fields, so it gets Mistral's recordings."""
    own = recordings().get(CALLS[sdk][0], [])
    if sdk == "mistralai":
        own = [each for each in own if "stral" in each[0]]
    return [(SAMPLE[sdk], body_of(SAMPLES[SAMPLE[sdk]])), *own[::STEP]]


async def play(request: web.Request) -> web.StreamResponse:
    """Answer with the recording that the name of the model asks for: SDK and number, joined with a dot."""
    sdk, _, number = (await model_of(request)).rpartition(".")
    body = played(sdk.replace("_", " "))[int(number)][1]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for start in range(0, len(body), 1_499):
        await response.write(body[start : start + 1_499])
    return response


@pytest.mark.parametrize("sdk", CALLS)
async def test_a_recorded_stream_is_the_same_and_its_copy_is_complete(sdk: str) -> None:
    """Yield the same with the hook, with `tee` and without, and copy what the independent reader reads."""
    reader = oracle.READERS[CALLS[sdk][0]]
    models = [f"{sdk}.{number}" for number in range(len(played(sdk)))]
    found: list[Any] = []
    for start in range(0, len(models), _AT_ONCE):
        found += await outcomes(sdk, ("plain", "hook", "tee"), models[start : start + _AT_ONCE], play)
    without: Any = None
    wrong = []
    for model, mode, outcome in found:
        name, body = played(sdk)[int(model.rpartition(".")[2])]
        if mode == "plain":
            without = outcome
            continue
        if (outcome["result"], outcome["error"]) != (without["result"], without["error"]):
            wrong.append(f"{name}, {mode}: the caller gets something else")
        if str(outcome["error"]).startswith(_VALIDATION):
            continue
        messages = oracle.messages_of(body)
        if mode == "tee":
            # SDKs do not give `[DONE]` to their callers. Two recordings have a second message, which is a
            # response of its own; the reader stops before it.
            messages = [each for each in messages if _DONE not in each]
            outcome["streams"] = outcome["streams"][:1]
        copy, read = oracle.read_responses(copied(outcome)), reader(messages)
        wrong += [
            f"{name}, {mode}: {field}: {getattr(copy, field)!r:.200} instead of {getattr(read, field)!r:.200}"
            for field in oracle.Read._fields
            if getattr(copy, field) != getattr(read, field)
        ]
    assert wrong == []
