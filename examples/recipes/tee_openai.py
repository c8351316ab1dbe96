"""Copy one stream of the OpenAI SDK. Streams of other SDKs, such as anthropic, work the same way."""

import os

import openai

import deltaloom

publisher = deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))
client = openai.OpenAI()
stream = client.responses.create(model="gpt-5", input="Hello", stream=True)
for event in deltaloom.tee(stream, publisher, tenant="acme"):
    print(event.type)
