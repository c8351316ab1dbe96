"""Publish a response's streaming events with redis-py, one event per entry."""

import json
import os

import redis

client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379"))
stream = os.environ.get("DELTALOOM_PREFIX", "deltaloom") + ":deltas"

# Events as the API streams them; with the openai package, use `event.model_dump()`.
part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
events = [
    {"type": "response.refusal.delta", "sequence_number": 1, "delta": "I'm sorry,", **part},
    {"type": "response.refusal.delta", "sequence_number": 2, "delta": " but no.", **part},
    {"type": "response.refusal.done", "sequence_number": 3, "refusal": "I'm sorry, but no.", **part},
]

for event in events:
    client.xadd(stream, {"event": json.dumps(event), "response_id": "resp_python"})
