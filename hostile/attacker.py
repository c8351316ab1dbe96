"""A producer that stores a generator's entries at its rate, and records them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from hostile.ledger import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.processes import Server
    from hostile.entry import Entry
    from hostile.generators import Generator
    from hostile.ledger import Ledger

CLIENT = "hostile-producer"
"""Prefix of these connections' names."""

_AT_ONCE = 100
_BYTES_AT_ONCE = 256_000
_REPLY_WITHIN = 60.0
_MEGABYTE = 1_000_000
_PAUSE = 0.02


class Pace:
    """A limit of bytes per second: more may be sent only when all earlier bytes were due."""

    def __init__(self, rate: float) -> None:
        """Begin now, with this rate in bytes per second."""
        self._clock = asyncio.get_running_loop().time
        self._rate = rate
        self._began = self._clock()
        self.sent = 0

    @property
    def due(self) -> bool:
        """Return whether more may be sent now."""
        return self.sent <= self._rate * (self._clock() - self._began)


class Attacker:
    """The producer of one generator's entries.

    Args:
        generator: description of the generator.
        entries: its entries.
        server: server to store them on.
        stream_of: returns the input stream for an entry.
        ledger: receives each stored entry.
        rate: megabytes per second.
    """

    def __init__(
        self,
        generator: Generator,
        entries: Iterator[Entry],
        server: Server,
        stream_of: Callable[[Entry], str],
        ledger: Ledger,
        rate: float,
    ) -> None:
        self._generator = generator
        self._entries = entries
        self._server = server
        self._stream_of = stream_of
        self._ledger = ledger
        self._rate = rate * _MEGABYTE

    async def run(self, ends: Callable[[], bool]) -> None:
        """Send entries until `ends()`."""
        client = self._server.client(timeout=_REPLY_WITHIN)
        client.connection_pool.connection_kwargs["client_name"] = f"{CLIENT}-{self._generator.name}"
        async with client:
            pace = Pace(self._rate)
            while not ends():
                await self._store(client, _batch(self._entries, pace))
                await _until(lambda: pace.due or ends())

    async def _store(self, client: Any, batch: list[Entry]) -> None:
        streams = [self._stream_of(entry) for entry in batch]
        pipeline = client.pipeline(transaction=False)
        for stream, entry in zip(streams, batch, strict=True):
            pipeline.xadd(stream, dict(entry.fields), id=entry.id)
        replies = await pipeline.execute(raise_on_error=False)
        for stream, entry, reply in zip(streams, batch, replies, strict=True):
            if isinstance(reply, bytes):
                self._ledger.sent(self._generator.name, Place(stream, reply.decode()), entry)
            elif isinstance(reply, ResponseError):
                self._ledger.refused += 1
            else:
                raise reply


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition depends on time, not on an event
        await asyncio.sleep(_PAUSE)


def _batch(entries: Iterator[Entry], pace: Pace) -> list[Entry]:
    """Return the next entries that are due, at least one."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.size
        pace.sent += entry.size
        if len(batch) >= _AT_ONCE or size >= _BYTES_AT_ONCE or not pace.due:
            break
    return batch
