"""Vocabulary of the fundamental tests: events of a response, and a deltaloom to publish them to."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from deltaloom import GROUP, AssembledText, DeadLetter, ModerationAlert, StreamNames
from handlers import ENTRY_POINT_GROUP
from tests import relays, workers
from tests.streams import add
from tests.webhook_receiver import Receiver
from tests.workers import WorkerProcess, running_workers, workers_in_process

Event = dict[str, Any]


def refusal(*words: str) -> list[Event]:
    """Return the events of a refusal: a delta for each of the words, then the whole text."""
    return _text("response.refusal", "refusal", words, output_index=0)


def reasoning(*words: str) -> list[Event]:
    """Return the events of a reasoning text: a delta for each of the words, then the whole text."""
    return _text("response.reasoning_text", "text", words, output_index=1)


def answer(*words: str) -> list[Event]:
    """Return the events of an answer: a delta for each of the words, then the whole text."""
    return _text("response.output_text", "text", words, output_index=2)


def _text(family: str, field: str, words: tuple[str, ...], output_index: int) -> list[Event]:
    part = {"item_id": f"item_{output_index}", "output_index": output_index, "content_index": 0}
    deltas = [
        {"type": f"{family}.delta", "sequence_number": number, "delta": word, **part}
        for number, word in enumerate(words, 1)
    ]
    done = {"type": f"{family}.done", "sequence_number": len(words) + 1, field: "".join(words), **part}
    return [*deltas, done]


@dataclass(frozen=True)
class Loom:
    """A deltaloom for one test: its streams on a real server, its workers and its relays."""

    redis: Redis
    redis_url: str
    names: StreamNames
    folder: Path
    """Folder for files of this test; worker processes find packages there."""

    async def publish(self, *events: Event | list[Event] | str, response_id: str = "resp_1") -> None:
        """Add each event, or each list of events, to the stream of deltas. A string is added as it is."""
        for event in events:
            body = event if isinstance(event, str) else json.dumps(event)
            await add(self.redis, self.names.deltas, {"event": body, "response_id": response_id})

    @asynccontextmanager
    async def worker(self, **settings: Any) -> AsyncIterator[None]:
        """Run a worker within the test. `handlers="refusal"` is `DELTALOOM_HANDLERS`, and so on."""
        async with workers_in_process(self.redis_url, self.names.prefix, **settings):
            yield

    def worker_processes(self, count: int) -> AbstractAsyncContextManager[list[WorkerProcess]]:
        """Run workers on the same streams, each in a process of its own: with a log, and to be killed."""
        return running_workers(self.redis_url, self.names.prefix, count, log_level="debug", block_ms=50)

    def install(self, handler: str) -> None:
        """Install a package with this handler as its entry point, for processes that start from now on."""
        package = self.folder / "acme-1.0.dist-info"
        package.mkdir()
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        (package / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nacme = {handler}\n")

    @asynccontextmanager
    async def relay_to(self, webhook: Receiver) -> AsyncIterator[None]:
        """Run a relay that sends all alerts to a webhook."""
        file = self.folder / "alerts.toml"
        file.write_text(relays.destination("webhook", webhook.url))
        # A slow machine must not lose the lease, since a delivery would then be repeated.
        environment = relays.relay_environment(self.redis_url, self.names.prefix, lease_time=60, block_ms=50)
        async with relays.relay_process(file, environment):
            yield

    async def all_is_processed(self) -> None:
        """Wait until the workers have processed all events, and have written all texts that are complete."""
        await workers.wait_until_settled(self.redis, self.names.prefix)

    async def all_is_delivered(self) -> None:
        """Wait until the webhook has confirmed all alerts."""
        await relays.wait_until_settled(self.redis, self.names.prefix, "webhook")

    async def texts(self) -> list[AssembledText]:
        """Return the finished texts so far."""
        return await workers.texts(self.redis, self.names.prefix)

    async def alerts(self) -> list[ModerationAlert]:
        """Return the alerts so far."""
        return await workers.alerts(self.redis, self.names.prefix)

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters so far."""
        return await workers.dead_letters(self.redis, self.names.prefix)

    async def freeze_in_mid_work(self, worker: WorkerProcess) -> bool:
        """Freeze a worker that has read events and not yet processed them; return False if it has none."""
        worker.freeze()
        pending = await self.redis.xpending(self.names.deltas, GROUP)
        if not pending["pending"]:
            worker.thaw()
        return bool(pending["pending"])
