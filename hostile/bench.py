"""A whole run: honest load alone, then beside hostile load, then wait, compare, end everything."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from chaos.ending import end_tasks
from chaos.generator import make_response
from chaos.observer import Observer
from chaos.processes import Workers, WorkerSlot
from chaos.producer import Producer
from chaos.receiver import SECRET, SECRET_VARIABLE
from chaos.verdict import Ending
from deltaloom import GROUP
from deltaloom.streams import Partitions
from hostile import limits, output, probe, watch
from hostile.attacker import Attacker
from hostile.deliveries import Deliveries
from hostile.generators import GENERATORS, RETRY_AFTER
from hostile.receiver import Receiver
from hostile.verdict import Verdict
from hostile.victims import Victims

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostile.entry import Entry
    from hostile.options import Options

_PAGE = 50
"""Entries of outputs that are read at once: hostile ones are large."""
_PROBE_LASTS = 20.0
"""A run whose hostile phase is shorter has no probe: a worker must also look meanwhile."""
_PROBE_AFTER = 12.0
_APART = 1.0
"""Seconds between the openings of two generators: each is to be stood by itself."""
_SPIKE_WITHIN = 15.0
_LOOK_EVERY = 1.0
_SETTLED_EVERY = 0.2


@dataclass(slots=True)
class Progress:
    """Where a run is: read by who shows it."""

    verdict: Verdict
    deliveries: Deliveries
    receiver: Receiver
    memory: watch.MemoryWatch
    phase: str = "starting"
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    """How long hostile entries were sent."""
    lag: int = 0
    most_open: int = 0
    server_peak: int = 0
    log_bytes: int = 0
    slow: watch.SlowCommands = field(default_factory=lambda: watch.SlowCommands({}, {}))
    probed: bool = False
    folder: Path = Path()


class Bench:
    """One run."""

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
        self.groups = self._groups()
        self.memory = watch.MemoryWatch(self.groups, self.verdict.violate)
        self.progress = Progress(
            self.verdict, self.deliveries, self.receiver, self.memory, folder=self.folder
        )

    def _groups(self) -> list[Workers]:
        """Workers that log for machines, workers that log for people, and relays."""
        options = self.options

        def died(why: str) -> None:
            self.verdict.violate("worker died", why)

        def group(what: str, count: int, *arguments: str, form: str = "json") -> Workers:
            command = (sys.executable, "-m", "hostile.limited", str(limits.ADDRESS_SPACE), *arguments)
            environment = {**self._environment(), "DELTALOOM_LOG_FORMAT": form}
            workers = Workers(self.folder, command, environment, died, what=what)
            workers.slots = [WorkerSlot(number) for number in range(count)]
            return workers

        file = self.folder / "alerts.toml"
        return [
            group("worker", options.workers - options.workers // 2, "worker"),
            group("worker-pretty", options.workers // 2, "worker", form="pretty"),
            group("relay", options.relays, "relay", "--config", str(file)),
        ]

    def _environment(self) -> dict[str, str]:
        """Everything as deployed, but for what a run of a minute could not show."""
        options = self.options
        return {
            "REDIS_URL": f"redis://127.0.0.1:{self.server.port}",
            "DELTALOOM_PARTITIONS": str(options.partitions),
            "DELTALOOM_IDLE_TIMEOUT": str(options.idle_timeout),
            "DELTALOOM_MAX_OPEN_RESPONSES": str(limits.OPEN_RESPONSES),
            "DELTALOOM_SPIKE_WINDOW": str(probe.WINDOW),
            "DELTALOOM_SPIKE_BASELINE": str(probe.BASELINE),
            "DELTALOOM_SPIKE_RESPONSES": str(probe.RESPONSES),
            SECRET_VARIABLE: SECRET,
        }

    async def run(self) -> Progress:
        """Do it; whatever happens, no process is left behind."""
        try:
            await self.server.start()
            async with self.receiver.running():
                file = self.folder / "alerts.toml"
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
            await self._wait_for_workers()
            producers = self._producers()
            watching = [
                *(asyncio.create_task(observer.follow()) for observer in self.observers),
                *(
                    asyncio.create_task(observer.watch_lag(partial(_safe_id, producers[names.deltas])))
                    for observer, names in zip(self.observers, self.partitions.all, strict=True)
                ),
                asyncio.create_task(self.memory.follow()),
                asyncio.create_task(self._look()),
            ]
            try:
                await self._publish(producers, prober)
                self.progress.phase = "settling"
                await self._settle()
            finally:
                await end_tasks(*watching)
            await self._compare(prober)

    async def _wait_for_workers(self) -> None:
        """Wait until all of them read: what they do before is no measure."""
        deadline = time.monotonic() + self.options.settle_time
        async with self.server.client() as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(RedisError):
                    names = [names.deltas for names in self.partitions.all]
                    found = [len(await client.xinfo_consumers(name, GROUP)) for name in names]
                    if min(found) >= self.options.workers:
                        return
                await asyncio.sleep(0.1)

    def _producers(self) -> dict[str, list[Producer]]:
        """Honest producers, by the stream that they write to."""
        count = self.options.producers
        return {
            names.deltas: [
                Producer(
                    place * count + n,
                    self.options.seed,
                    self.server,
                    names.deltas,
                    self.verdict,
                    make=partial(make_response, sound=True),
                )
                for n in range(count)
            ]
            for place, names in enumerate(self.partitions.all)
        }

    async def _publish(self, producers: dict[str, list[Producer]], prober: probe.Probe) -> None:
        """Publish honestly all the time, and hostilely after the warm-up."""
        options, progress, clock = self.options, self.progress, time.monotonic
        began = clock()
        hostile_at, ends_at = began + options.warm_up, began + options.warm_up + options.seconds

        def ends() -> bool:
            return clock() >= ends_at or self.memory.too_much.is_set()

        every = [producer for some in producers.values() for producer in some]
        progress.phase = "honest"
        publishing = asyncio.gather(
            *(each.run(_steady(options.honest / len(every), ends), ends) for each in every)
        )
        try:
            await asyncio.wait({publishing}, timeout=options.warm_up)
            self.verdict.warming_up = False
            progress.phase = "hostile"
            await self._attack(ends, prober)
            progress.seconds = clock() - hostile_at
            await self._measure_keys()
            await publishing
        finally:
            await end_tasks(publishing)

    async def _attack(self, ends: Callable[[], bool], prober: probe.Probe) -> None:
        options = self.options
        chosen = [GENERATORS[name] for name in options.generators if name != RETRY_AFTER]
        attackers = [
            Attacker(
                generator,
                generator.entries(options.seed, self.victims),
                self.server,
                self._stream_of(),
                self.verdict.ledger,
                options.rate,
            )
            for generator in chosen
        ]
        apart = min(_APART, options.seconds / 2 / max(1, len(attackers)))

        async def attack(place: int, attacker: Attacker) -> None:
            await asyncio.sleep(place * apart)
            try:
                await attacker.run(ends)
            except (RedisError, OSError) as error:
                self.verdict.violate("not settled", f"the server did not take an entry: {error}")

        async def probing() -> None:
            if self.progress.probed:
                await asyncio.sleep(_PROBE_AFTER)
                await prober.present()

        async def until_the_end() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.memory.too_much.wait(), options.seconds)

        await asyncio.gather(probing(), until_the_end(), *itertools.starmap(attack, enumerate(attackers)))

    def _stream_of(self) -> Callable[[Entry], str]:
        """Return who says the input of an entry: that of the response which it is near, or each in turn."""
        every = self.partitions.all
        turns = itertools.cycle(every)

        def stream_of(entry: Entry) -> str:
            if entry.near is None:
                return next(turns).deltas
            producer = int(entry.near.split("-")[-2])
            return every[producer // self.options.producers].deltas

        return stream_of

    async def _look(self) -> None:
        """Note how much is open and unread, until cancelled."""
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
        """Wait until all is done: nothing unread, pending, waiting or open, all honest alerts delivered."""
        began = time.monotonic()
        deadline = began + self.options.settle_time + self.options.idle_timeout
        left: str | None = "not looked yet"
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
        await output.judge_commands(self._environment(), await self._lengths(), verdict.violate)
        await self._end_processes()
        for observer in self.observers:
            await observer.drain()
        verdict.judge_times(slowdown=limits.SLOWDOWN, floor_ms=limits.FLOOR_MS)
        if self.memory.too_much.is_set():  # nobody could know what is still to come
            return
        if options.relays:
            self.deliveries.end()
        verdict.totals["probes"] = prober.entries
        endings = [await observer.ending() for observer in self.observers]
        ending = merged(endings)
        if verdict.violations["not settled"]:  # then keys of what is open are no leftovers
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
        """Look up each honest text as an item: nobody else's may stand in its place."""
        async with self.server.client() as client:
            for text_id, item in self.verdict.items.items():
                for names in self.partitions.all:
                    json = await client.hget(names.item(item.owner, item.output_index), item.field)
                    if json is not None and f'"{text_id}"'.encode() in json:
                        break
                else:
                    self.verdict.violate(
                        "wrong item", f"{item.owner} {item.output_index} {item.field} is not {text_id}"
                    )

    async def _lengths(self) -> dict[str, int]:
        """Return how many entries each output has, by the name that the command has for it."""
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
            at_most = f"at most {limits.SLOW_COMMAND_MS} ms"
            self.verdict.violate("slow command", f"{name} of a worker or relay took {ms:,.0f} ms; {at_most}")
        if self.progress.most_open > 2 * limits.OPEN_RESPONSES:
            limit = f"the limit is {limits.OPEN_RESPONSES:,}"
            self.verdict.violate("too many open", f"{self.progress.most_open:,} responses were open; {limit}")


def merged(endings: Sequence[Ending]) -> Ending:
    """Return what is stored in all partitions together; of each, the keys of the others are no leftovers."""
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


def _steady(rate: float, ends: Callable[[], bool]) -> Callable[[], bool]:
    """Return who says whether one more response may begin: so many a second, whatever was before."""
    begun = 0
    began = time.monotonic()

    def may_begin() -> bool:
        nonlocal begun
        if ends() or begun > rate * (time.monotonic() - began):
            return False
        begun += 1
        return True

    return may_begin


def _safe_id(producers: list[Producer]) -> str:
    return min(
        (producer.last_id for producer in producers), key=lambda each: tuple(map(int, each.split("-")))
    )
