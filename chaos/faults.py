"""Injection of the planned faults, their counts, and the repair at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from chaos.plan import Fault
    from chaos.processes import Server, Workers, WorkerSlot
    from chaos.proxy import Proxy

_LATENCIES = (0.002, 0.3)
"""Minimum and maximum delay of a chunk of bytes, in seconds."""

_OOM_BYTES = 1

_ALL_CLIENTS = 0.5
"""Probability that the fault `client-kill` closes all connections instead of waiting ones only."""


class Faults:
    """The injector of faults."""

    def __init__(
        self,
        server: Server,
        workers: Workers,
        proxy: Proxy,
        on_worker_killed: Callable[[int], Awaitable[None]],
        relays: Workers,
    ) -> None:
        self._server = server
        self._workers = workers
        self._relays = relays
        self._proxy = proxy
        self._on_worker_killed = on_worker_killed
        self.done: Counter[str] = Counter()
        self.current: dict[str, int] = {}
        self.errors: list[BaseException] = []
        self._kinds: dict[str, Callable[[Fault], Awaitable[bool]]] = {
            "worker-kill": self._kill_worker,
            "worker-stop": partial(self._stop, workers),
            "relay-kill": self._kill_relay,
            "relay-stop": partial(self._stop, relays),
            "server-kill": self._kill_server,
            "cut": self._cut,
            "mute": self._mute,
            "delay": self._delay,
            "stall": self._stall,
            "oom": self._oom,
            "client-kill": self._kill_clients,
            "script-flush": self._flush_scripts,
        }

    async def follow(self, plan: Sequence[Fault]) -> None:
        """Inject each fault at its time, several at once if they overlap.

        Return when the last one is over.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(max(0.0, began + fault.at - clock()))
                group.create_task(self._inject(fault))

    async def _inject(self, fault: Fault) -> None:
        self.current[fault.kind] = self.current.get(fault.kind, 0) + 1
        try:
            if await self._kinds[fault.kind](fault):
                self.done[fault.kind] += 1
        except (RedisError, OSError):
            pass  # the server is down just now, which is a fault too
        finally:
            self.current[fault.kind] -= 1

    async def repair(self) -> None:
        """Restore the server's memory limit, and let all workers and relays run."""
        await self._set_memory(0)
        for processes in (self._workers, self._relays):
            for slot in processes.slots:
                processes.go_on(slot, slot.process)
                await processes.start(slot)

    async def _kill_worker(self, fault: Fault) -> bool:
        return await self._kill(self._workers, fault, self._on_worker_killed)

    async def _kill_relay(self, fault: Fault) -> bool:
        return await self._kill(self._relays, fault, None)

    async def _kill(
        self, processes: Workers, fault: Fault, tell: Callable[[int], Awaitable[None]] | None
    ) -> bool:
        alive = [slot for slot in processes.slots if slot.alive]
        if not alive:
            return False
        slot = _chosen(alive, fault)
        pid = await processes.kill(slot)
        if pid is None:
            return False
        if tell is not None:
            await tell(pid)
        await asyncio.sleep(fault.seconds)
        await processes.start(slot)
        return True

    async def _stop(self, processes: Workers, fault: Fault) -> bool:
        if not processes.slots:
            return False
        slot = _chosen(processes.slots, fault)
        process = slot.process
        if not processes.stop(slot):
            return False
        await asyncio.sleep(fault.seconds)
        processes.go_on(slot, process)
        return True

    async def _kill_server(self, fault: Fault) -> bool:
        await self._server.kill_and_restart(fault.seconds)
        return True

    async def _cut(self, fault: Fault) -> bool:
        return self._proxy.cut(fault.choice) > 0

    async def _mute(self, fault: Fault) -> bool:
        return await self._proxy.mute(fault.choice, fault.seconds) > 0

    async def _delay(self, fault: Fault) -> bool:
        low, high = _LATENCIES
        await self._proxy.delay(fault.seconds, low + (high - low) * fault.choice**3)
        return True

    async def _stall(self, fault: Fault) -> bool:
        return await self._proxy.stall(fault.choice, fault.seconds) > 0

    async def _oom(self, fault: Fault) -> bool:
        async with self._server.client() as client:
            await client.config_set("maxmemory", _OOM_BYTES)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await self._set_memory(0)
        return True

    async def _set_memory(self, limit: int) -> None:
        for _ in range(100):
            with contextlib.suppress(RedisError, OSError):
                async with self._server.client() as client:
                    await client.config_set("maxmemory", limit)
                return
            await asyncio.sleep(0.1)

    async def _kill_clients(self, fault: Fault) -> bool:
        """Close connections on the server: those of waiting readers, or all."""
        async with self._server.client() as client:
            own = str(await client.client_id())
            killed = 0
            for each in await client.client_list():
                chosen = "b" in each["flags"] or fault.choice < _ALL_CLIENTS
                if chosen and each["id"] != own and not each["name"].startswith("chaos"):
                    killed += int(await client.client_kill_filter(_id=each["id"]))
        return killed > 0

    async def _flush_scripts(self, _fault: Fault) -> bool:
        async with self._server.client() as client:
            await client.script_flush()
        return True


def _chosen(slots: Sequence[WorkerSlot], fault: Fault) -> WorkerSlot:
    return slots[min(int(fault.choice * len(slots)), len(slots) - 1)]
