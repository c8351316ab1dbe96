"""Let a worker rebuild the texts of entries."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from deltaloom import StreamNames
from service.apps.worker_app import WorkerApp
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from chaos.processes import Server

_REPLAY: Final = StreamNames("replay")
_PATIENCE: Final = 60.0
"""Seconds without any progress after which the worker is given up.

The whole work has no limit, since it grows with the length of the run.
"""
_LOOK_EVERY: Final = 0.2


class Remainder(NamedTuple):
    """The work that a worker has left, and its results so far."""

    unread: int
    """Entries that it has not read."""
    pending: int
    """Entries that it has read and not acknowledged."""
    open: int
    """Responses that are neither finished nor abandoned."""
    texts: int
    """Finished texts."""

    @property
    def is_empty(self) -> bool:
        """True if no work is left."""
        return not (self.unread or self.pending or self.open)

    def __str__(self) -> str:
        return (
            f"{self.unread} entries are unread, {self.pending} pending, {self.open} responses open; "
            f"{self.texts} texts are finished"
        )


class Rebuilt(NamedTuple):
    """The results of a worker."""

    texts: list[dict[str, Any]]
    dead_letters: int
    left: Remainder | None
    """The work left over by a worker that stopped making progress; None if nothing is left."""


async def wait_until_done(
    look: Callable[[], Awaitable[Remainder]], *, every: float = _LOOK_EVERY, patience: float = _PATIENCE
) -> Remainder | None:
    """Wait until no work is left; return what is left if nothing changes for too long.

    Args:
        look: function that returns what is left.
        every: seconds between two looks.
        patience: seconds without any change after which the worker is given up.
    """
    clock = asyncio.get_running_loop().time
    left, changed_at = await look(), clock()
    while not left.is_empty:
        await asyncio.sleep(every)
        before, left = left, await look()
        if left != before:
            changed_at = clock()
        elif clock() - changed_at > patience:
            return left
    return None


async def rebuild(server: Server, entries: Sequence[Mapping[bytes, bytes]]) -> Rebuilt:
    """Let a worker rebuild the texts of entries."""
    async with server.client(timeout=60) as client:
        for start in range(0, len(entries), 1_000):
            pipeline = client.pipeline(transaction=False)
            for fields in entries[start : start + 1_000]:
                pipeline.xadd(_REPLAY.deltas, fields)  # type: ignore[arg-type] # bytes are fine
            await pipeline.execute()
        settings: dict[str, Any] = {
            "redis_url": f"redis://127.0.0.1:{server.port}",
            "prefix": _REPLAY.prefix,
            "block_ms": 50,
            "idle_timeout": 2,
            "handlers": "refusal,reasoning,output_text",
        }
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        worker = WorkerApp(Settings(**settings))
        serving = asyncio.create_task(worker.serve())
        await worker.start()
        try:
            left = await wait_until_done(partial(_remainder, client))
        finally:
            worker.stop()
            await serving
        found: Any = await client.xrange(_REPLAY.assembled)
        texts = [json.loads(fields[b"__data__"]) for _, fields in found]
        return Rebuilt(texts, await client.xlen(_REPLAY.dead_letters), left)


async def _remainder(client: Any) -> Remainder:
    """Return the work that a worker has left."""
    pipeline = client.pipeline(transaction=True)
    pipeline.xinfo_stream(_REPLAY.deltas)
    pipeline.xinfo_groups(_REPLAY.deltas)
    pipeline.zcard(_REPLAY.name("open"))
    pipeline.xlen(_REPLAY.assembled)
    stream, (group,), still_open, texts = await pipeline.execute()
    unread = group["lag"]
    if unread is None:  # the server does not know the number
        unread = int(group["last-delivered-id"] != stream["last-generated-id"])
    return Remainder(unread, group["pending"], still_open, texts)
