"""Copy all answers that pydantic-ai gets from OpenAI."""

import os

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import deltaloom

publisher = deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))
client = deltaloom.instrument(AsyncOpenAI(), publisher)
agent = Agent(OpenAIChatModel("gpt-5", provider=OpenAIProvider(openai_client=client)))

print(agent.run_sync("Hello").output)
