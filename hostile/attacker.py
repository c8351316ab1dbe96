"""Stores what a generator makes, at its rate, and notes what is stored."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from hostile.generators import WHOLE
from hostile.ledger import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


class Attacker:
    """One generator, at its share of the rate.

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
        self._rate = rate * _MEGABYTE * generator.share / WHOLE
        self._sent = 0.0

    async def run(self, ends: Callable[[], bool]) -> None:
        """Send until `ends()`; after the opening, what was sent too much is waited for."""
        clock = asyncio.get_running_loop().time
        client = self._server.client(timeout=_REPLY_WITHIN)
        client.connection_pool.connection_kwargs["client_name"] = f"{CLIENT}-{self._generator.name}"
        async with client:
            for entry in itertools.islice(self._entries, self._generator.opening):
                await self._store(client, [entry])
            began = clock()
            while not ends():
                if self._sent <= self._rate * (clock() - began):
                    await self._store(client, self._batch(self._rate * (clock() - began)))
                else:
                    await asyncio.sleep(_PAUSE)

    def _batch(self, allowed: float) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while len(batch) < _AT_ONCE and size < _BYTES_AT_ONCE and self._sent <= allowed:
            entry = next(self._entries)
            batch.append(entry)
            size += entry.size
            self._sent += entry.size
        return batch

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
