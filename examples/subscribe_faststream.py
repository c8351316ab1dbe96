"""Read all new finished texts and alerts with FastStream."""

import asyncio
import os

from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub

from deltaloom import AssembledText, ModerationAlert, StreamNames

broker = RedisBroker(os.environ.get("REDIS_URL", "redis://localhost:6379"))
names = StreamNames(os.environ.get("DELTALOOM_PREFIX", "deltaloom"))


@broker.subscriber(stream=StreamSub(names.assembled, group="archive", consumer="archive-1"))
async def on_text(text: AssembledText) -> None:
    print(text.response_id, text.kind, text.status, text.integrity, text.text, flush=True)


@broker.subscriber(stream=StreamSub(names.alerts, group="on-call", consumer="on-call-1"))
async def on_alert(alert: ModerationAlert) -> None:
    print(alert.response_id, alert.type, alert.severity, alert.text, flush=True)


if __name__ == "__main__":
    asyncio.run(FastStream(broker).run())
