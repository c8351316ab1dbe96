"""Stores what a generator makes, at its rate, and notes what is stored."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from hostile.generators import WHOLE
from hostile.ledger import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis.asyncio import Redis

    from chaos.processes import Server
    from hostile.entry import Entry
    from hostile.generators import Generator
    from hostile.ledger import Ledger

CLIENT = "hostile-producer"
"""How the names of these connections begin."""

_AT_ONCE = 100
_BYTES_AT_ONCE = 256_000
_REPLY_WITHIN = 60.0
_MEGABYTE = 1_000_000
_PAUSE = 0.02


class Pace:
    """So many bytes a second: more are sent only when all before were due."""

    def __init__(self, rate: float) -> None:
        """Begin now, with this rate in bytes a second."""
        self._clock = asyncio.get_running_loop().time
        self._rate = rate
        self._began = self._clock()
        self.sent = 0

    @property
    def due(self) -> bool:
        """Whether more may be sent now."""
        return self.due_in <= 0

    @property
    def due_in(self) -> float:
        """Seconds until more may be sent; below 0 if it was before."""
        return self.sent / self._rate - (self._clock() - self._began)


class Attacker:
    """One generator.

    Args:
        generator: makes the entries.
        entries: what it makes.
        server: takes them.
        stream_of: says the input that an entry goes to.
        ledger: is told of each.
        rate: megabytes a second of the whole mix.
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

    async def run(self, turn: asyncio.Lock, ends: Callable[[], bool]) -> None:
        """Send until `ends()`: the opening at the rate of the whole mix, in its turn; then at its share."""
        client = self._server.client(timeout=_REPLY_WITHIN)
        client.connection_pool.connection_kwargs["client_name"] = f"{CLIENT}-{self._generator.name}"
        async with client:
            async with turn:
                opening = itertools.islice(self._entries, self._generator.opening)
                await self._send(client, opening, Pace(self._rate), ends)
            share = Pace(self._rate * self._generator.share / WHOLE)
            await self._send(client, self._entries, share, ends)

    async def _send(
        self, client: Redis, entries: Iterator[Entry], pace: Pace, ends: Callable[[], bool]
    ) -> None:
        while not ends() and (batch := _batch(entries, pace)):
            await self._store(client, batch)
            while not pace.due and not ends():
                await asyncio.sleep(min(pace.due_in, _PAUSE))

    async def _store(self, client: Redis, batch: list[Entry]) -> None:
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


def _batch(entries: Iterator[Entry], pace: Pace) -> list[Entry]:
    """Return the next entries that are due, at least one of what is left."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.size
        pace.sent += entry.size
        if len(batch) >= _AT_ONCE or size >= _BYTES_AT_ONCE or not pace.due:
            break
    return batch
