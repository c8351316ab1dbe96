"""Reader of the outputs during a run, and of the stored state."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from chaos.ending import end_tasks
from chaos.verdict import Ending, Leftover, Message
from deltaloom import GROUP, StreamNames

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from chaos.processes import Server
    from chaos.verdict import Verdict

    class AlertListener(Protocol):
        """A listener for alerts on the stream."""

        def raised(self, fields: Mapping[str, Any]) -> None:
            """Note that an alert is on the stream."""
            ...


AUDIT = "chaos-audit"
"""A consumer group that never reads: entries before its position may be trimmed, those after it not."""

_PAGE = 1000
_FOR_EVER = -1
"""Reply of PTTL for a key that does not expire."""


class Observer:
    """A reader of the outputs of one partition, which reads each entry once."""

    def __init__(
        self,
        server: Server,
        names: StreamNames,
        verdict: Verdict,
        deliveries: Sequence[AlertListener],
        *,
        page: int = 1000,
    ) -> None:
        """Begin with the oldest entries.

        Args:
            server: server with the streams.
            names: names of the partition's streams.
            verdict: receives each entry of the outputs.
            deliveries: receive each alert.
            page: number of entries to read at once from each stream.
        """
        self._server = server
        self._page = page
        self.names = names
        self._verdict = verdict
        self._deliveries = deliveries
        self._last = {names.assembled: "0", names.alerts: "0", names.dead_letters: "0"}
        self.lag = 0
        """Number of entries that the workers have not read yet."""
        self.read = 0
        """Number of entries read from the outputs so far."""
        self.delays: Counter[int] = Counter()
        """Counts of milliseconds from closing entry to text, rounded to powers of two."""

    async def follow(self) -> None:
        """Read until cancelled, with retries while the server is down."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self._server.client() as client:
                    while True:
                        if not await self._read_some(client, block_ms=200):
                            await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)

    async def watch_lag(self, safe_id: Any) -> None:
        """Update `lag`, and allow trimming of entries that the producers need no longer, until cancelled."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self._server.client() as client:
                    while True:
                        groups = await client.xinfo_groups(self.names.deltas)
                        for group in groups:
                            if group["name"] == GROUP.encode() and group["lag"] is not None:
                                self.lag = group["lag"]
                        await client.xgroup_setid(self.names.deltas, AUDIT, safe_id())
                        await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)

    async def begin(self) -> None:
        """Create the audit group before any entry is published."""
        async with self._server.client() as client:
            await client.xgroup_create(self.names.deltas, AUDIT, id="0", mkstream=True)

    async def drain(self) -> None:
        """Read all remaining entries."""
        async with self._server.client() as client:
            while await self._read_some(client, block_ms=None):
                pass

    async def _read_some(self, client: Any, block_ms: int | None) -> int:
        reply = await client.xread(self._last, count=self._page, block=block_ms)
        pages = {name.decode(): entries for name, entries in reply}
        count = self._take_all(self.names.assembled, pages.pop(self.names.assembled, []))
        while count and count % self._page == 0:  # its text must be read before an alert
            after = {self.names.assembled: self._last[self.names.assembled]}
            more = await client.xread(after, count=self._page)
            if not more:
                break
            count += self._take_all(self.names.assembled, more[0][1])
        return count + sum(self._take_all(stream, entries) for stream, entries in pages.items())

    def _take_all(self, stream: str, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> int:
        for entry_id, fields in entries:
            self._take(stream, entry_id.decode(), fields)
            self._last[stream] = entry_id.decode()
        self.read += len(entries)
        return len(entries)

    def _take(self, stream: str, entry_id: str, fields: Mapping[bytes, bytes]) -> None:
        size = sum(len(name) + len(value) for name, value in fields.items())
        if stream == self.names.dead_letters:
            letter = {name.decode(): value.decode() for name, value in fields.items()}
            self._verdict.dead_letter(Message(entry_id, letter, size))
            return
        message = Message(entry_id, json.loads(fields[b"__data__"]), size)
        if stream == self.names.assembled:
            self._verdict.text(message)
        else:
            self._verdict.alert(message)
            for each in self._deliveries:
                each.raised(message.fields)

    async def settled(self, *, nothing_open: bool) -> str | None:
        """Return a description of the work that remains; None if there is none."""
        async with self._server.client() as client:
            for group in await client.xinfo_groups(self.names.deltas):
                if group["name"] != GROUP.encode():
                    continue
                if group["lag"]:
                    return f"{group['lag']} entries unread"
                if group["pending"]:
                    return f"{group['pending']} entries pending"
                if waiting := await client.zcard(self.names.name("waiting")):
                    return f"{waiting} responses waiting"
                if nothing_open and (still_open := await client.zcard(self.names.name("open"))):
                    return f"{still_open} responses open"
                return None
        return "there is no group yet"

    async def undelivered(self) -> int:
        """Return the number of alerts that wait for the destination with the larger backlog."""
        async with self._server.client() as client:
            if not await client.exists(self.names.alerts):
                return 0
            groups = await client.xinfo_groups(self.names.alerts)
        return max(((each["lag"] or 0) + each["pending"] for each in groups), default=0)

    async def ending(self) -> Ending:
        """Return the state that is stored now."""
        names = self.names
        stays = {names.deltas, names.assembled, names.alerts, names.deliveries, names.dead_letters}
        stays |= {names.name(name) for name in ("counts", "counted-types", "counted-fields", "format")}
        async with self._server.client() as client:
            counts = await client.hgetall(names.name("counts"))
            info = await client.xinfo_stream(names.deltas)
            groups = {group["name"]: group for group in await client.xinfo_groups(names.deltas)}
            keys = []
            pipeline = client.pipeline(transaction=False)
            found = [key async for key in client.scan_iter(count=_PAGE) if _text(key) not in stays]
            for key in found:
                pipeline.pttl(key)
            for key, ttl in zip(found, await pipeline.execute(), strict=True):
                is_log = _text(key).startswith(names.name("log:"))
                keys.append(Leftover(_text(key), expires=ttl != _FOR_EVER and not is_log))
        group = groups[GROUP.encode()]
        return Ending(
            counts={_text(name): int(value) for name, value in counts.items()},
            keys=tuple(keys),
            entries_added=info["entries-added"],
            pending=group["pending"],
            unread=group["lag"],
        )

    async def entries_out(self) -> int:
        """Return the number of entries that were ever added to the outputs."""
        total = 0
        async with self._server.client() as client:
            for name in self._last:
                if await client.exists(name):
                    total += (await client.xinfo_stream(name))["entries-added"]
        return total


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


class Takeovers:
    """Measurements of the time until entries of killed workers are taken over."""

    def __init__(self, server: Server, names: StreamNames) -> None:
        self._server = server
        self._names = names
        self.delays: list[float] = []
        self.entries = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self, pid: int) -> None:
        """Start to measure for a worker that was just killed."""
        task = asyncio.create_task(self._until_taken_over(pid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Stop measuring."""
        await end_tasks(*self._tasks)

    async def _until_taken_over(self, pid: int) -> None:
        clock = asyncio.get_running_loop().time
        killed_at = clock()
        held = False
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self._server.client() as client:
                    holds = await pending_of(client, self._names.deltas, pid)
                if holds and not held:
                    held = True
                    self.entries += holds
                if not holds:
                    if held:
                        self.delays.append(clock() - killed_at)
                    return
            await asyncio.sleep(0.1)


async def pending_of(client: Any, stream: str, pid: int) -> int:
    """Return the number of pending entries of a worker."""
    summary = await client.xpending(stream, GROUP)
    part = f"-{pid}-"
    return sum(each["pending"] for each in summary["consumers"] if part in each["name"].decode())
