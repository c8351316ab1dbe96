"""Test the translators against the texts that SDKs make of recorded streams.

The recordings are in the folder that RECORDED_DIALECTS names; without it, the samples are played.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from aiohttp import web

from deltaloom.dialects import Translator
from tests.client.dialects.oracle import messages_of
from tests.client.dialects.reading import reading_of
from tests.client.dialects.streams import SAMPLES, body_of, sse
from tests.client.dialects.test_oracle import bodies
from tests.receivers import receiving
from tests.sdks.programs import run_program
from tests.sdks.test_calls import model_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.prove

DIALECTS = {
    "openai": "openai.chat",
    "anthropic": "anthropic.messages",
    "google": "gemini.generate_content",
    "mistralai": "openai.chat",
    "cohere": "cohere.chat",
}
"""Dialect that each SDK reads."""


class Stream(NamedTuple):
    """A stream and the texts of its kinds, each joined."""

    body: bytes
    texts: dict[str, str]


def streams_for(sdk: str) -> Iterator[tuple[str, Stream]]:
    """Yield names and streams that an SDK may read."""
    found = list(bodies()) or [(name, body_of(sample)) for name, sample in SAMPLES.items()]
    for name, body in found:
        translator = Translator()
        events = translator.feed(body) + translator.end()
        if translator.dialect != DIALECTS[sdk] or (sdk == "mistralai" and b"stral" not in body):
            continue
        texts: dict[str, str] = {}
        for name_of_kind, text in reading_of(events).texts:
            kind = name_of_kind.removesuffix("_summary")
            texts[kind] = texts.get(kind, "") + text
        messages = messages_of(body)
        is_done = {"[DONE]": True} in messages
        yield name, Stream(sse([each for each in messages if "[DONE]" not in each], done=is_done), texts)


async def made_by(sdk: str, streams: dict[str, Stream]) -> list[dict[str, Any]]:
    """Return the texts that an SDK makes of each stream, and its error."""
    names = list(streams)

    async def answer(request: web.Request) -> web.Response:
        name = names[int(await model_of(request))]
        return web.Response(body=streams[name].body, content_type="text/event-stream")

    async with receiving(answer) as server:
        task = {"sdk": sdk, "url": server.url, "models": [str(number) for number in range(len(names))]}
        output = await run_program(Path(__file__).with_name("messages.py"), json.dumps(task))
    return [json.loads(line) for line in output.splitlines()]


def is_different(sdk: str, body: bytes, made: dict[str, Any]) -> bool:
    """Return True for the differences that docs/dialects.md names."""
    answer = made["texts"].get("output_text", "").lstrip()
    return bool(
        made["error"]
        or answer.startswith(("<think>", "<reasoning>"))
        or (sdk == "openai" and b'"type": "thinking"' in body)
        or (sdk == "anthropic" and body.count(b"event: message_start") > 1)
    )


@pytest.mark.parametrize("sdk", DIALECTS)
async def test_texts_of_recorded_streams(sdk: str) -> None:
    """Give the texts that the SDK gives, except for the differences on the page."""
    streams = dict(streams_for(sdk))
    if not streams:
        pytest.skip("no sample is a stream for this SDK")
    found = await made_by(sdk, streams)
    same, different = 0, []
    for (name, stream), made in zip(streams.items(), found, strict=True):
        if is_different(sdk, stream.body, made):
            continue
        same += made["texts"] == stream.texts
        if made["texts"] != stream.texts:
            different.append(f"{name}: {made['texts']!r:.500} instead of {stream.texts!r:.500}")
    assert different == []
    assert same >= len(streams) / 2, [made["error"] for made in found]
