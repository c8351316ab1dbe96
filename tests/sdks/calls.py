"""Call SDKs against a server, and print what the caller got and what was copied.

A program for the virtual environment of the SDKs: `python calls.py` reads calls as JSON from stdin, and
writes one line for each. It imports nothing but deltaloom and the SDK that is called, since each of them
takes seconds to import.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import deltaloom
from deltaloom.teeing import counters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

CANARY = "canary-7c1f"
"""Written into the headers, queries and bodies of requests."""


class Recorder:
    """A publisher that keeps what it is offered."""

    def __init__(self) -> None:
        self.streams: list[dict[str, Any]] = []

    def stream(self, response_id: str | None = None, **context: str | None) -> RecordedStream:
        """Begin a stream."""
        self.streams.append(
            {
                "response_id": response_id,
                "events": [],
                "ended": False,
                "context": {name: value for name, value in context.items() if value is not None},
            }
        )
        return RecordedStream(self.streams[-1])


class RecordedStream:
    """A stream that keeps what it is offered."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record
        self.response_id = record["response_id"]

    def offer(self, events: Sequence[dict[str, Any]]) -> None:
        """Keep events."""
        self._record["events"] += events

    def end(self) -> None:
        """Keep that the stream ended."""
        self._record["ended"] = True


def _openai(url: str, *, is_async: bool) -> Any:
    import openai

    kind = openai.AsyncOpenAI if is_async else openai.OpenAI
    return kind(base_url=f"{url}/v1", api_key=CANARY, max_retries=0, default_query={"secret": CANARY})


def _anthropic(url: str, *, is_async: bool) -> Any:
    import anthropic

    kind = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    return kind(base_url=url, api_key=CANARY, max_retries=0, default_query={"secret": CANARY})


def _google(url: str, *, is_async: bool) -> Any:
    import httpx2
    from google import genai
    from google.genai import types

    options = types.HttpOptions(base_url=url)
    if is_async:  # without it, async requests go through aiohttp, if that is installed
        options.httpx_async_client = httpx2.AsyncClient()
    return genai.Client(api_key=CANARY, http_options=options)


def _mistral(url: str, **_: bool) -> Any:
    import mistralai.client

    return mistralai.client.Mistral(api_key=CANARY, server_url=url)


PROMPT = [{"role": "user", "content": CANARY}]


def _chat(client: Any, model: str, *, stream: bool) -> Any:
    return client.chat.completions.create(model=model, messages=PROMPT, stream=stream)


def _responses(client: Any, model: str, *, stream: bool) -> Any:
    return client.responses.create(model=model, input=CANARY, stream=stream)


def _messages(client: Any, model: str, *, stream: bool) -> Any:
    return client.messages.create(model=model, messages=PROMPT, max_tokens=9, stream=stream)


def _gemini(client: Any, model: str, *, stream: bool) -> Any:
    models = client.models
    return (models.generate_content_stream if stream else models.generate_content)(
        model=model, contents=CANARY
    )


def _gemini_async(client: Any, model: str, *, stream: bool) -> Any:
    return _gemini(client.aio, model, stream=stream)


def _mistral_chat(client: Any, model: str, *, stream: bool) -> Any:
    return (client.chat.stream if stream else client.chat.complete)(model=model, messages=PROMPT)


def _mistral_chat_async(client: Any, model: str, *, stream: bool) -> Any:
    return (client.chat.stream_async if stream else client.chat.complete_async)(model=model, messages=PROMPT)


SDKS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "openai chat": (_openai, _chat, _chat),
    "openai responses": (_openai, _responses, _responses),
    "anthropic": (_anthropic, _messages, _messages),
    "google-genai": (_google, _gemini, _gemini_async),
    "mistralai": (_mistral, _mistral_chat, _mistral_chat_async),
}
"""Client, sync call and async call of each SDK."""


def plain(value: Any) -> Any:
    """Return an event or answer of an SDK as JSON has it."""
    return value.model_dump(mode="json", exclude={"sdk_http_response"}, warnings=False)


def sync_events(found: Any, *, stream: bool) -> Iterator[Any]:
    """Yield the events of a stream, or the answer."""
    if stream:
        yield from found
    else:
        yield found


async def async_events(found: Any, *, stream: bool) -> AsyncIterator[Any]:
    """Yield the events of a stream, or the answer."""
    if stream:
        async for event in found:
            yield event
    else:
        yield found


async def call(task: dict[str, Any]) -> dict[str, Any]:
    """Make one call, and return the caller's events and error, and the copied streams."""
    recorder = Recorder()
    result: list[Any] = []
    error = None
    try:
        if task["async"]:
            await call_async(task, recorder, result)
        else:
            call_sync(task, recorder, result)
    except Exception as raised:  # noqa: BLE001 - what an SDK raises is a result
        error = f"{type(raised).__name__}: {raised}"
    deltaloom.uninstrument()
    return {
        "result": result,
        "error": error,
        "streams": recorder.streams,
        "faults": dict(counters.faults),
    }


@cache
def client_for(sdk: str, url: str, *, is_async: bool) -> Any:
    """Return the client of an SDK. All tasks share it, since each loads its certificates for long."""
    return SDKS[sdk][0](url, is_async=is_async)


def client_of(task: dict[str, Any], recorder: Recorder) -> Any:
    """Return the client for a task, instrumented if its mode says so."""
    client = client_for(task["sdk"], task["url"], is_async=task["async"])
    deltaloom.uninstrument(client)
    if task["mode"] == "hook":
        deltaloom.instrument(client, recorder, tenant="acme")
    elif task["mode"] == "all":
        deltaloom.instrument_all(recorder, tenant="acme")
    return client


def call_sync(task: dict[str, Any], recorder: Recorder, result: list[Any]) -> None:
    """Make a sync call, and add the events that the caller gets to the result."""
    stream = task["stream"]
    client = client_of(task, recorder)
    found = SDKS[task["sdk"]][1](client, task["model"], stream=stream)
    if task["mode"] == "tee":
        found = deltaloom.tee(found, recorder, tenant="acme")
    for event in sync_events(found, stream=stream):
        result.append(plain(event))
        if len(result) == task["take"]:
            close_sync(found)
            return


async def call_async(task: dict[str, Any], recorder: Recorder, result: list[Any]) -> None:
    """Make an async call, and add the events that the caller gets to the result."""
    stream = task["stream"]
    client = client_of(task, recorder)
    found = await SDKS[task["sdk"]][2](client, task["model"], stream=stream)
    if task["mode"] == "tee":
        found = deltaloom.tee(found, recorder, tenant="acme")
    async for event in async_events(found, stream=stream):
        result.append(plain(event))
        if len(result) == task["take"]:
            await close_async(found)
            return


def close_sync(found: Any) -> None:
    """Close a stream as its SDK has it."""
    leave = getattr(found, "close", None) or found.response.close
    leave()


async def close_async(found: Any) -> None:
    """Close a stream as its SDK has it."""
    leave = getattr(found, "aclose", None) or getattr(found, "close", None) or found.response.aclose
    await leave()


async def main() -> None:
    """Make the calls."""
    for task in json.load(sys.stdin):
        print(json.dumps(await call(task)), flush=True)  # noqa: T201 - output of a program


if __name__ == "__main__":
    asyncio.run(main())
