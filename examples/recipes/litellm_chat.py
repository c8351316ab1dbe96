"""Copy all answers that LiteLLM gets. It makes its own clients, so all of the process are instrumented."""

import os

import litellm

import deltaloom

publisher = deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))
deltaloom.instrument_all(publisher)

for chunk in litellm.completion("openai/gpt-5", [{"role": "user", "content": "Hello"}], stream=True):
    print(chunk.choices)
