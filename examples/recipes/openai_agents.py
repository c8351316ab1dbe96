"""Copy all answers that the agents of the OpenAI Agents SDK get."""

import asyncio
import os

from agents import Agent, Runner, set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI

import deltaloom

publisher = deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))
set_default_openai_client(deltaloom.instrument(AsyncOpenAI(), publisher))
set_tracing_disabled(True)


async def main() -> None:
    result = Runner.run_streamed(Agent(name="Assistant", model="gpt-5"), "Hello")
    async for event in result.stream_events():
        print(event.type)


asyncio.run(main())
