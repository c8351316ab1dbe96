"""Copy a stream of Bedrock. boto3 has no hook for bodies, so `tee` wraps the stream."""

import os

import boto3

import deltaloom

publisher = deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))
client = boto3.client("bedrock-runtime")
response = client.converse_stream(
    modelId="amazon.nova-lite-v1:0", messages=[{"role": "user", "content": [{"text": "Hello"}]}]
)
for event in deltaloom.tee(response["stream"], publisher):
    print(event)
