"""Read all finished texts with redis-py, in a consumer group that begins with the oldest text."""

import contextlib
import os

import redis

from deltaloom import AssembledText, StreamNames

client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379"))
stream = StreamNames(os.environ.get("DELTALOOM_PREFIX", "deltaloom")).assembled

with contextlib.suppress(redis.ResponseError):  # BUSYGROUP: the group exists already
    client.xgroup_create(stream, "search", id="0", mkstream=True)

after = "0"  # first the entries that this consumer has not acknowledged yet
while True:
    for _, entries in client.xreadgroup("search", "search-1", {stream: after}, count=100, block=1000):
        for entry_id, fields in entries:
            text = AssembledText.model_validate_json(fields[b"__data__"])
            print(text.response_id, text.kind, text.status, text.integrity, text.text, flush=True)
            client.xack(stream, "search", entry_id)
    after = ">"  # then new entries
