"""Copy all answers that LangChain gets from OpenAI."""

import os

from langchain_openai import ChatOpenAI

import deltaloom

publisher = deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))
model = ChatOpenAI(model="gpt-5")
deltaloom.instrument(model.root_client, publisher)
deltaloom.instrument(model.root_async_client, publisher)

for chunk in model.stream("Hello"):
    print(chunk.content)
