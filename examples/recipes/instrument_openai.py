"""Copy all answers that a client of the OpenAI SDK gets."""

import os

import openai

import deltaloom

publisher = deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))
client = deltaloom.instrument(openai.OpenAI(), publisher, tenant="acme")

answer = client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "Hello"}])
print(answer.choices)
