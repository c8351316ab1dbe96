"""Producers that store entries, and know exactly which of them are stored.

A producer sends a batch of XADDs, one per response, so that the entries of a response keep their order
whatever fails. It never sends a command twice without a check. If a reply is lost, it kills its connection on
the server, so that no command of it can be executed later, and reads the stream from the last known entry on:
each entry carries a name. An audit group, which never reads, keeps these entries from being trimmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from chaos.generator import TAG, make_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from chaos.generator import EntryToStore, Response
    from chaos.processes import Server
    from chaos.verdict import Verdict

    MakeResponse = Callable[[str, int, int], Response]
    """Function that makes a response from the seed, the producer's number and the response's number."""

_OPEN_AT_ONCE = 24
_BATCH = 16
_SLOW_SECONDS = 12.0
"""Approximate duration of a slow response, in seconds; others are published as fast as possible."""
_LONGEST_PAUSE = 2.0
_REPLY_WITHIN = 5.0
_RETRY_PAUSE = 0.1


class _Stream:
    """A response that is being published."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.next = 0
        self.not_before = 0.0

    @property
    def entry(self) -> EntryToStore:
        return self.response.entries[self.next]


class Producer:
    """A producer that publishes many responses at once."""

    def __init__(
        self,
        number: int,
        seed: str,
        server: Server,
        stream: str,
        verdict: Verdict,
        *,
        make: MakeResponse = make_response,
    ) -> None:
        self._make = make
        self._number = number
        self._seed = seed
        self._server = server
        self._stream = stream
        self._verdict = verdict
        self._rng = random.Random(f"{seed}/producer/{number}")
        self._open: list[_Stream] = []
        self.last_id = "0-0"
        """Id of this producer's last entry that is known to be stored."""
        self.unknown = 0
        """Number of entries that had to be looked up after lost replies."""
        self._name_of_connection = ""
        self._hurry = False

    async def run(self, may_begin: Callable[[], bool], ends: Callable[[], bool]) -> None:
        """Publish until `ends()`, then finish open responses. Begin new ones only while `may_begin()`."""
        numbers = itertools.count()
        client = await self._connect()
        try:
            while self._open or not ends():
                self._hurry = ends()
                while len(self._open) < _OPEN_AT_ONCE and may_begin() and not ends():
                    response = self._make(self._seed, self._number, next(numbers))
                    self._verdict.expect(response)
                    self._open.append(_Stream(response))
                batch = self._batch()
                if not batch:
                    await asyncio.sleep(0.01)
                    continue
                if not await self._store(client, batch):
                    await client.aclose()
                    client = await self._find_out(batch)
                self._open = [stream for stream in self._open if stream.next < len(stream.response.entries)]
        finally:
            await client.aclose()

    def _batch(self) -> list[_Stream]:
        now = time.monotonic()
        ready = [stream for stream in self._open if self._hurry or stream.not_before <= now]
        return self._rng.sample(ready, min(len(ready), self._rng.randint(1, _BATCH)))

    async def _store(self, client: Redis, batch: list[_Stream]) -> bool:
        """Store the next entry of each response; return False if it is unknown which are stored."""
        pipeline = client.pipeline(transaction=False)
        for stream in batch:
            fields: dict[Any, Any] = dict(stream.entry.fields)
            pipeline.xadd(self._stream, fields)
        try:
            replies = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError):
            return False
        refused = False
        for stream, reply in zip(batch, replies, strict=True):
            if isinstance(reply, bytes):
                self._is_stored(stream, reply.decode())
            elif isinstance(reply, ResponseError) or "OOM" in str(reply):
                refused = True
            else:
                return False
        if refused:
            await asyncio.sleep(_RETRY_PAUSE)
        return True

    def _is_stored(self, stream: _Stream, entry_id: str) -> None:
        self._verdict.stored(stream.response.name, self._stream, entry_id)
        self.last_id = entry_id
        stream.next += 1
        if stream.response.slow:
            pause = 2 * _SLOW_SECONDS / len(stream.response.entries)
            stream.not_before = time.monotonic() + self._rng.uniform(0, min(pause, _LONGEST_PAUSE))

    async def _connect(self) -> Redis:
        while True:
            self._name_of_connection = f"chaos-producer-{self._number}-{time.monotonic_ns()}"
            client = self._server.client(timeout=_REPLY_WITHIN)
            client.connection_pool.connection_kwargs["client_name"] = self._name_of_connection
            with contextlib.suppress(RedisError, OSError):
                await client.ping()
                return client
            await client.aclose()
            await asyncio.sleep(_RETRY_PAUSE)

    async def _find_out(self, batch: list[_Stream]) -> Redis:
        """Look up which entries of a batch are stored, after lost replies; return a new connection."""
        lost = self._name_of_connection
        missing = {
            stream.entry.fields[TAG]: stream for stream in batch if stream.next < len(stream.response.entries)
        }
        self.unknown += len(missing)
        while True:
            client = await self._connect()
            try:
                for each in await client.client_list():
                    if each["name"] == lost:
                        await client.client_kill_filter(_id=each["id"])
                found = await self._look_for(client, set(missing))
            except (RedisError, OSError):
                await client.aclose()
                continue
            for entry_id, tag in found:
                self._is_stored(missing[tag], entry_id)
            return client

    async def _look_for(self, client: Any, tags: set[Any]) -> list[tuple[str, str]]:
        found = []
        first = f"({self.last_id}"
        while True:
            entries = await client.xrange(self._stream, min=first, count=1000)
            for entry_id, fields in entries:
                tag = fields[TAG.encode()].decode()
                if tag in tags:
                    found.append((entry_id.decode(), tag))
            if len(entries) < 1000:  # noqa: PLR2004 - the requested page size
                return found
            first = f"({entries[-1][0].decode()}"
