"""Make the requests of the six cases of docs/connect.md, and print what was copied, as JSON.

A program for the virtual environment of the SDKs. OPENAI_BASE_URL names the server, which answers by the
name of the model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import openai
from agents import Agent, OpenAIProvider, RunConfig, Runner, function_tool, set_tracing_disabled

import deltaloom
from deltaloom.teeing import counters

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.sdks.calls import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT: Any = [{"role": "user", "content": "Hello"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]

set_tracing_disabled(disabled=True)


def chat(client: Any, model: str, **options: Any) -> None:
    """Read a stream of Chat Completions to its end."""
    for _ in client.chat.completions.create(model=model, messages=PROMPT, stream=True, **options):
        pass


def choices(recorder: Recorder) -> None:
    """Ask for two choices."""
    chat(deltaloom.instrument(openai.OpenAI(), recorder), "choices", n=2)


def tools(recorder: Recorder) -> None:
    """Let the model call a tool, and send the result."""
    client = deltaloom.instrument(openai.OpenAI(), recorder)
    chat(client, "tool-call", tools=TOOLS)
    chat(client, "tool-result", tools=TOOLS)


def retries(recorder: Recorder) -> None:
    """Let the SDK repeat a request."""
    chat(deltaloom.instrument(openai.OpenAI(max_retries=1), recorder), "retried")


def breaks(recorder: Recorder) -> None:
    """Ask again after a stream that breaks."""
    client = deltaloom.instrument(openai.OpenAI(max_retries=0), recorder, reference="request-1")
    with contextlib.suppress(Exception):
        chat(client, "broken")
    chat(client, "whole")


def resumed(recorder: Recorder) -> None:
    """Continue a stream of the Responses API, with the hook and with `tee`."""
    client = deltaloom.instrument(openai.OpenAI(), recorder)
    stream = client.responses.create(model="resumed", input="Hello", stream=True)
    next(iter(stream))
    stream.close()
    for _ in client.responses.retrieve("resp_1", stream=True, starting_after=1):
        pass
    rest = client.responses.retrieve("resp_1", stream=True, starting_after=1)
    for _ in deltaloom.tee(rest, recorder):
        pass


def background(recorder: Recorder) -> None:
    """Start a response in the background, and get it when it is done."""
    client = deltaloom.instrument(openai.OpenAI(), recorder)
    client.responses.create(model="background", input="Hello", background=True)
    client.responses.retrieve("resp_1")


def fallback(recorder: Recorder) -> None:
    """Ask a model in place of which another one answers."""
    client = anthropic.Anthropic(base_url=os.environ["OPENAI_BASE_URL"], api_key="key")
    deltaloom.instrument(client, recorder)
    for _ in client.messages.create(model="fallback", messages=PROMPT, max_tokens=9, stream=True):
        pass


async def run_agent(copied: Callable[[Any], Any], client: Any) -> None:
    """Run an agent that calls a tool."""

    def weather() -> str:
        """Return the weather."""
        return "canary of a tool"

    agent = Agent(name="Assistant", model="agent", tools=[function_tool(weather)])
    config = RunConfig(model_provider=OpenAIProvider(openai_client=client))
    result = Runner.run_streamed(agent, "Hello", run_config=config)
    async for _ in copied(result.stream_events()):
        pass


def agents_with_tee(recorder: Recorder) -> None:
    """Copy the stream of an agent."""
    asyncio.run(run_agent(lambda events: deltaloom.tee(events, recorder), openai.AsyncOpenAI()))


def agents_with_hook(recorder: Recorder) -> None:
    """Copy what an agent's client gets."""
    client = deltaloom.instrument(openai.AsyncOpenAI(), recorder)
    asyncio.run(run_agent(lambda events: events, client))


CASES = (
    *(choices, tools, retries, breaks, resumed, background, fallback),
    *(agents_with_tee, agents_with_hook),
)


def main() -> None:
    """Print the streams of each case, and the faults."""
    found: dict[str, Any] = {}
    for case in CASES:
        recorder = Recorder()
        case(recorder)
        found[case.__name__] = recorder.streams
    found["faults"] = dict(counters.faults)
    print(json.dumps(found))  # noqa: T201 - output of a program


if __name__ == "__main__":
    main()
