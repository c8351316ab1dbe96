"""A whole run: honest load alone, then hostile load next to it, then wait, compare, stop everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from chaos.ending import end_tasks
from chaos.observer import Observer
from chaos.verdict import Ending
from deltaloom import GROUP
from deltaloom.streams import Partitions
from hostile import deployment, limits, output, probe, watch
from hostile.deliveries import Deliveries
from hostile.generators import RETRY_AFTER
from hostile.load import Load
from hostile.receiver import Receiver
from hostile.verdict import Verdict
from hostile.victims import Victims

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostile.options import Options

_PAGE = 50
"""Number of entries of outputs to read at once; small, since hostile ones are large."""
_PROBE_LASTS = 20.0
"""Minimum seconds of hostile load for a run with a probe, since a worker must check for spikes meanwhile."""
_NICE = 10
"""Niceness of the bench, so that producers and destinations yield to worker, relay and server."""
_SPIKE_WITHIN = 15.0
_LOOK_EVERY = 1.0
_SETTLED_EVERY = 0.2


@dataclass(slots=True)
class Progress:
    """The state of a run, for the progress display."""

    verdict: Verdict
    deliveries: Deliveries
    receiver: Receiver
    memory: watch.MemoryWatch
    phase: str = "starting"
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    """Seconds for which hostile entries were sent."""
    lag: int = 0
    most_open: int = 0
    server_peak: int = 0
    log_bytes: int = 0
    slow: watch.SlowCommands = field(default_factory=lambda: watch.SlowCommands({}, {}))
    probed: bool = False
    folder: Path = Path()


class Bench:
    """A run of the bench."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = Path(mkdtemp(prefix="deltaloom-hostile-"))
        self.partitions = Partitions(options.partitions)
        self.victims = Victims()
        self.verdict = Verdict(
            options.seed,
            self.victims,
            widest_gap_ms=options.idle_timeout * 500,
            late_ms=options.late * 1000,
        )
        self.server = watch.NamedServer(self.folder)
        self.deliveries = Deliveries(
            self.verdict.violate,
            self.verdict.is_honest,
            self.verdict.added,
            late=options.late_delivery,
        )
        self.receiver = Receiver(self.deliveries, odd=RETRY_AFTER in options.generators)
        self.observers = [
            Observer(self.server, names, self.verdict, (self.deliveries,), page=_PAGE)
            for names in self.partitions.all
        ]
        self.settings = deployment.environment(options, self.server.port)
        self.groups = deployment.processes(options, self.folder, self.settings, self.verdict.violate)
        self.memory = watch.MemoryWatch(self.groups, self.verdict.violate)
        self.load = Load(
            options, self.server, self.partitions, self.verdict, self.victims, self.memory.too_much
        )
        self.progress = Progress(
            self.verdict, self.deliveries, self.receiver, self.memory, folder=self.folder
        )

    async def run(self) -> Progress:
        """Run the bench. All processes are killed at the end, also after an error."""
        try:
            await self.server.start()
            async with self.receiver.running():
                file = self.folder / deployment.ALERTS_FILE
                file.write_text(self.receiver.configuration(), encoding="utf-8")
                await self._run()
        finally:
            for group in self.groups:
                await group.kill_all()
            await self.server.kill()
        self.progress.log_bytes = output.judge_logs(self.folder, self.verdict.violate)
        self.progress.phase = "done"
        return self.progress

    async def _run(self) -> None:
        async with self.server.client() as client:
            prober = probe.Probe(client, self.partitions.all[0].deltas)
            self.progress.probed = self.options.seconds >= _PROBE_LASTS
            if self.progress.probed:
                await prober.past()
            for observer in self.observers:
                await observer.begin()
            await watch.begin_slow_log(self.server)
            for group in self.groups:
                for slot in group.slots:
                    await group.start(slot)
            give_way()
            await self._wait_for_workers()
            watching = [
                *(asyncio.create_task(observer.follow()) for observer in self.observers),
                *(
                    asyncio.create_task(observer.watch_lag(partial(self.load.safe_id, names.deltas)))
                    for observer, names in zip(self.observers, self.partitions.all, strict=True)
                ),
                asyncio.create_task(self.memory.follow()),
                asyncio.create_task(self._look()),
            ]
            try:
                await self.load.publish(self._begin_hostile, prober if self.progress.probed else None)
                self.progress.seconds = self.load.seconds
                self.progress.phase = "settling"
                await self._measure_keys()
                await self._settle()
                for task in watching:
                    if task.done():
                        task.result()
            finally:
                await end_tasks(*watching)
            await self._compare(prober)

    async def _wait_for_workers(self) -> None:
        """Wait until all workers read, since their start must not be measured."""
        deadline = time.monotonic() + self.options.settle_time
        async with self.server.client() as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(RedisError):
                    names = [names.deltas for names in self.partitions.all]
                    found = [len(await client.xinfo_consumers(name, GROUP)) for name in names]
                    if min(found) >= self.options.workers:
                        return
                await asyncio.sleep(0.1)

    def _begin_hostile(self) -> None:
        self.verdict.warming_up = False
        self.progress.phase = "hostile"

    async def _look(self) -> None:
        """Record the numbers of open responses and unread entries, until cancelled."""
        async with self.server.client() as client:
            while True:
                with contextlib.suppress(RedisError, OSError):
                    opened = [await client.zcard(names.name("open")) for names in self.partitions.all]
                    self.progress.most_open = max(self.progress.most_open, *opened)
                    self.progress.lag = sum(observer.lag for observer in self.observers)
                    self.progress.server_peak = (await client.info("memory"))["used_memory_peak"]
                await asyncio.sleep(_LOOK_EVERY)

    async def _measure_keys(self) -> None:
        for names in self.partitions.all:
            self.verdict.ledger.keys(await watch.key_bytes(self.server, names))

    async def _settle(self) -> None:
        """Wait until no work remains: no unread entries, no open responses, no undelivered honest alerts."""
        began = time.monotonic()
        deadline = began + self.options.settle_time + self.options.idle_timeout
        left: str | None = "not checked yet"
        while left is not None and time.monotonic() < deadline and not self.memory.too_much.is_set():
            with contextlib.suppress(RedisError, OSError):
                left = await self._left(began)
            await asyncio.sleep(_SETTLED_EVERY)
        if left is not None and not self.memory.too_much.is_set():
            self.verdict.violate("not settled", f"{left} after {time.monotonic() - began:.0f} s")

    async def _left(self, began: float) -> str | None:
        for observer in self.observers:
            left = await observer.settled(nothing_open=True)
            if left is not None:
                return left
        if self.options.relays and self.deliveries.missing:
            return f"{self.deliveries.missing} honest alerts to be delivered"
        if self.progress.probed and not self.verdict.spikes[probe.MODEL]:
            return None if time.monotonic() > began + _SPIKE_WITHIN else "a spike of the probe"
        return None

    async def _compare(self, prober: probe.Probe) -> None:
        verdict, options = self.verdict, self.options
        for observer in self.observers:
            await observer.drain()
        await self._measure_keys()
        await self._judge_server()
        await output.judge_commands(self.settings, await self._lengths(), verdict.violate)
        await self._end_processes()
        for observer in self.observers:
            await observer.drain()
        verdict.judge_times(slowdown=options.slowdown, floor_ms=limits.FLOOR_MS)
        if self.memory.too_much.is_set():  # the outputs are incomplete
            return
        if options.relays:
            self.deliveries.end()
        verdict.totals["probes"] = prober.entries
        endings = [await observer.ending() for observer in self.observers]
        for each in endings:
            verdict.judge_counts(each.counts)
        ending = merged(endings)
        if verdict.violations["not settled"]:  # keys of open responses are not leftovers
            ending = ending._replace(keys=())
        verdict.end(ending)
        verdict.ledger.end(per_byte=options.per_byte, per_event=options.per_event)
        if self.progress.probed:
            verdict.judge_probe(probe.MODEL, endings[0].counts, prober.counted)
        await self._judge_items()

    async def _end_processes(self) -> None:
        self.receiver.judge(self.verdict.violate)
        began = time.monotonic()
        for wrongs in await asyncio.gather(*(group.end() for group in self.groups)):
            for wrong in wrongs:
                self.verdict.violate("worker died", wrong)
        took = time.monotonic() - began
        if took > limits.STOP_SECONDS:
            at_most = f"at most {limits.STOP_SECONDS:g} s"
            self.verdict.violate("slow stop", f"the last process ended {took:.1f} s after SIGTERM; {at_most}")

    async def _judge_items(self) -> None:
        """Look up each honest text in its item."""
        async with self.server.client() as client:
            for text_id, item in self.verdict.items.items():
                keys = [names.item(item.owner, item.output_index) for names in self.partitions.all]
                found: list[Any] = [await client.hget(key, item.field) for key in keys]
                self.verdict.judge_item(text_id, [json for json in found if json is not None])

    async def _lengths(self) -> dict[str, int]:
        """Return the number of entries of each output, by the stream's name in the command."""
        lengths: Counter[str] = Counter()
        async with self.server.client() as client:
            for names in self.partitions.all:
                lengths["assembled"] += await client.xlen(names.assembled)
                lengths["alerts"] += await client.xlen(names.alerts)
                lengths["dead-letters"] += await client.xlen(names.dead_letters)
        return lengths

    async def _judge_server(self) -> None:
        self.progress.slow = await watch.slow_commands(self.server)
        for name, ms in self.progress.slow.ours.items():
            if ms <= self.options.slow_command:
                continue
            at_most = f"at most {self.options.slow_command:g} ms"
            self.verdict.violate("slow command", f"{name} of a worker or relay took {ms:,.0f} ms; {at_most}")
        if self.progress.most_open > 2 * limits.OPEN_RESPONSES:
            limit = f"the limit is {limits.OPEN_RESPONSES:,}"
            self.verdict.violate("too many open", f"{self.progress.most_open:,} responses were open; {limit}")


def give_way() -> None:
    """Lower the bench's priority, since real producers and destinations run on other machines."""
    os.nice(_NICE)


def merged(endings: Sequence[Ending]) -> Ending:
    """Return the state of all partitions together. A key is a leftover only if each partition reports it."""
    counts: Counter[str] = Counter()
    for ending in endings:
        counts.update(ending.counts)
    return Ending(
        counts=counts,
        keys=tuple(set.intersection(*(set(ending.keys) for ending in endings))),
        entries_added=sum(ending.entries_added for ending in endings),
        pending=sum(ending.pending for ending in endings),
        unread=sum(ending.unread or 0 for ending in endings),
    )
