"""Publish a response's streaming events with a publisher that never delays or breaks the caller."""

import os

import deltaloom

publisher = deltaloom.Publisher(
    os.environ.get("REDIS_URL", "redis://localhost:6379"),
    prefix=os.environ.get("DELTALOOM_PREFIX", "deltaloom"),
)

part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
events = [
    {"type": "response.refusal.delta", "sequence_number": 1, "delta": "I'm sorry,", **part},
    {"type": "response.refusal.delta", "sequence_number": 2, "delta": " but no.", **part},
    {"type": "response.refusal.done", "sequence_number": 3, "refusal": "I'm sorry, but no.", **part},
]

stream = publisher.stream("resp_publisher", tenant="acme")
for event in events:
    stream.offer([event])
stream.end()

print(publisher.close(timeout=10).dropped)
