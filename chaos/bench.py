"""A whole run: start, disturb, repair, wait until all is processed, compare, stop everything."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from chaos.deliveries import Deliveries, Grouped
from chaos.ending import end_tasks
from chaos.faults import Faults
from chaos.generator import MAX_ARRAY_LENGTH, MAX_EVENT_BYTES
from chaos.observer import Observer, Takeovers
from chaos.plan import make_plan
from chaos.processes import RELAY_COMMAND, Server, Workers, WorkerSlot, worker_command
from chaos.producer import Producer
from chaos.prometheus import Prometheus, compare
from chaos.proxy import Proxy
from chaos.receiver import SECRET, SECRET_VARIABLE, Receiver
from chaos.verdict import Verdict
from deltaloom import StreamNames
from embedded.free_ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from chaos.options import Options

_SCRAPED_FIRST = 60
"""Seconds before the run that queries for counters include."""

_QUIET = 1.0
"""Seconds to listen at the end for outputs that should not come."""

_BACKLOG_TIMES = 5
"""Multiple of the settle time within which relays must deliver their backlog, as long as it shrinks."""


@dataclass(slots=True)
class Progress:
    """The state of a run, for the progress display."""

    verdict: Verdict
    deliveries: Deliveries
    grouped: Grouped
    phase: str = "starting"
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    """Seconds for which events were published."""
    faults: Counter[str] = field(default_factory=Counter)
    lag: int = 0
    workers: int = 0
    workers_started: int = 0
    takeover_delays: list[float] = field(default_factory=list)
    entries_taken_over: int = 0
    looked_up: int = 0
    folder: Path = Path()
    metrics: dict[str, int] = field(default_factory=dict)
    """Counters of all processes at the end, if they were scraped."""
    log_lines: Counter[str] = field(default_factory=Counter)
    """Counts of errors in the workers' logs, by event name and last line of the traceback."""


class Bench:
    """A run of the bench."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folder = Path(mkdtemp(prefix="deltaloom-chaos-"))
        self.names = StreamNames()
        # Half the idle timeout: a worker may add to a gap of the producer.
        self.verdict = Verdict(widest_gap_ms=options.idle_timeout * 500)
        self.server = Server(self.folder)
        self.proxy = Proxy(self.server.port)
        self.deliveries = Deliveries(self.verdict.violate)
        self.grouped = Grouped(self.verdict.violate)
        self.receiver = Receiver(options.seed, self.deliveries, self.grouped)
        listeners = (self.deliveries, self.grouped)
        self.prometheus = Prometheus(self.folder) if options.prometheus else None
        self.observer = Observer(self.server, self.names, self.verdict, listeners)
        self.takeovers = Takeovers(self.server, self.names)
        self.progress = Progress(
            verdict=self.verdict, deliveries=self.deliveries, grouped=self.grouped, folder=self.folder
        )

    async def run(self) -> Progress:
        """Run the bench. All processes are killed at the end, also after an error."""
        options = self.options

        def died(why: str) -> None:
            self.verdict.violate("worker died", why)

        file = self.folder / "alerts.toml"
        workers = Workers(self.folder, worker_command(options.sabotage), {}, died)
        relays = Workers(self.folder, (*RELAY_COMMAND, "--config", str(file)), {}, died, what="relay")
        try:
            await self.server.start()
            await self.observer.begin()
            async with self.proxy.running(), self.receiver.running():
                file.write_text(self.receiver.configuration(), encoding="utf-8")
                for processes, count in ((workers, options.workers), (relays, options.relays)):
                    processes.environment = self._environment()
                    processes.slots = [WorkerSlot(number, self._own_environment()) for number in range(count)]
                    for slot in processes.slots:
                        await processes.start(slot)
                if self.prometheus is not None:
                    await self.prometheus.start()
                await self._disturb(workers, relays)
                await self._settle(workers, relays)
        finally:
            await self.takeovers.end()
            await workers.kill_all()
            await relays.kill_all()
            await self.server.kill()
            if self.prometheus is not None:
                await self.prometheus.kill()
        self._read_logs()
        self.progress.phase = "done"
        return self.progress

    def _intervals(self) -> dict[str, float]:
        """Return the mean intervals of the faults, without relay faults if no relay runs."""
        intervals = self.options.intervals.items()
        return {kind: each for kind, each in intervals if self.options.relays or "relay" not in kind}

    def _own_environment(self) -> dict[str, str]:
        """Return the settings of one worker or relay: its metrics' address, if they are scraped."""
        if self.prometheus is None:
            return {}
        port = free_port()
        self.prometheus.ports.append(port)
        return {"DELTALOOM_HTTP": f"{HOST}:{port}"}

    def _environment(self) -> dict[str, str]:
        options = self.options
        return {
            "REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}",
            "DELTALOOM_PREFIX": self.names.prefix,
            "DELTALOOM_CLAIM_TIME": str(options.claim_time),
            "DELTALOOM_IDLE_TIMEOUT": str(options.idle_timeout),
            "DELTALOOM_MAX_EVENT_BYTES": str(MAX_EVENT_BYTES),
            "DELTALOOM_MAX_ARRAY_LENGTH": str(MAX_ARRAY_LENGTH),
            "DELTALOOM_SWEEP_INTERVAL": "0.5",
            "DELTALOOM_TRIM_INTERVAL": "1",
            "DELTALOOM_RETENTION": "300",
            "DELTALOOM_ITEM_TTL": "60",
            "DELTALOOM_MARKER_TTL": "300",
            "DELTALOOM_STATE_TTL": "3600",
            "DELTALOOM_LEASE_TIME": "2",
            SECRET_VARIABLE: SECRET,
            "DELTALOOM_LOG_LEVEL": "warning",
            "DELTALOOM_LOG_FORMAT": "json",
        }

    async def _disturb(self, workers: Workers, relays: Workers) -> None:
        options, progress = self.options, self.progress
        producers = [
            Producer(n, options.seed, self.server, self.names.deltas, self.verdict)
            for n in range(options.producers)
        ]
        faults = Faults(self.server, workers, self.proxy, self.takeovers.watch, relays)
        plan = make_plan(options.seed, options.seconds, self._intervals())
        began = time.monotonic()

        def ends() -> bool:
            failed = options.fail_fast and bool(self.verdict.violations)
            return failed or time.monotonic() - began > options.seconds

        def safe_id() -> str:
            return min((producer.last_id for producer in producers), key=_entry)

        async def update_progress() -> None:
            while True:
                progress.seconds = min(time.monotonic() - began, options.seconds)
                progress.faults = faults.done
                progress.lag = self.observer.lag
                progress.workers = sum(slot.alive and not slot.stopped for slot in workers.slots)
                progress.workers_started = workers.started
                await asyncio.sleep(0.1)

        progress.phase = "disturbing"
        watching = [
            asyncio.create_task(self.observer.follow()),
            asyncio.create_task(self.observer.watch_lag(safe_id)),
            asyncio.create_task(update_progress()),
        ]
        disturbing = asyncio.create_task(faults.follow(plan))
        try:
            publishing = asyncio.gather(
                *(p.run(lambda: self.observer.lag < options.backlog, ends) for p in producers)
            )
            await _first_failure_or_all(publishing, disturbing, *watching)
            progress.seconds = time.monotonic() - began
            if options.fail_fast and self.verdict.violations:
                await end_tasks(disturbing)
            else:
                await disturbing
            await faults.repair()
            self.receiver.failing = False
            progress.phase = "settling"
            await self._wait_until_settled()
        finally:
            await end_tasks(*watching, disturbing)
        progress.takeover_delays = self.takeovers.delays
        progress.entries_taken_over = self.takeovers.entries
        progress.looked_up = sum(producer.unknown for producer in producers)

    async def _wait_until_settled(self) -> None:
        if self.options.fail_fast and self.verdict.violations:
            return
        left: str | None = "not checked yet"
        deadline = time.monotonic() + self.options.settle_time + self.options.idle_timeout
        while left is not None and time.monotonic() < deadline:
            with contextlib.suppress(RedisError, OSError):
                left = await self.observer.settled(nothing_open=True)
            await asyncio.sleep(0.1)
        if left is None and self.options.relays:
            left = await self._wait_until_delivered()
        if left is not None:
            self.verdict.violate("not settled", f"{left} after {self.options.settle_time:g} s without faults")
        await asyncio.sleep(_QUIET)

    async def _wait_until_delivered(self) -> str | None:
        """Wait until all alerts are delivered; return a description of what is left when that takes too long.

        The backlog that a failing receiver has left depends on the machine. So the settle time begins again
        whenever the backlog is smaller than ever, but all takes at most `_BACKLOG_TIMES` the settle time.
        """
        fewest: float = math.inf
        began = time.monotonic()
        deadline, last = (began + times * self.options.settle_time for times in (1, _BACKLOG_TIMES))
        undelivered = 0
        while time.monotonic() < min(deadline, last):
            with contextlib.suppress(RedisError, OSError):
                undelivered = await self.observer.undelivered()
                if not undelivered:
                    return None
                if undelivered < fewest:
                    fewest, deadline = undelivered, time.monotonic() + self.options.settle_time
            await asyncio.sleep(0.1)
        return f"{undelivered} alerts undelivered"

    async def _settle(self, workers: Workers, relays: Workers) -> None:
        if self.options.fail_fast and self.verdict.violations:
            return
        if self.prometheus is not None:
            await self.prometheus.caught_up()
            await self._look_at_dashboard(self.prometheus)
        for wrong in (*await workers.end(), *await relays.end()):
            self.verdict.violate("worker died", wrong)
        await self.observer.drain()
        if self.options.relays:
            self.deliveries.end()
            self.grouped.end()
        missed = await self.observer.entries_out() - self.observer.read
        if missed:
            self.verdict.violate(
                "unaccounted", f"{missed} entries of outputs were trimmed before they were read"
            )
        self.verdict.end(await self.observer.ending())
        if self.prometheus is not None:
            await self._compare_metrics(self.prometheus)

    async def _look_at_dashboard(self, prometheus: Prometheus) -> None:
        """Evaluate the dashboard while all processes run: each panel must have data."""
        seconds = time.monotonic() - self.progress.began + _SCRAPED_FIRST
        asked, empty = await prometheus.empty_panels(seconds, relays=self.options.relays > 0)
        self.progress.metrics["expressions of the dashboard"] = asked
        for expression in empty:
            self.verdict.violate("wrong metric", f"the dashboard shows nothing for {expression}")

    async def _compare_metrics(self, prometheus: Prometheus) -> None:
        """Compare the counters with the accounts.

        The stored counts are exact. A process that was killed, or a lost reply, takes with it what it had
        counted since the last scrape; so in a run with faults, its counters may be below the accounts.
        """
        totals, seconds = self.verdict.totals, time.monotonic() - self.progress.began + _SCRAPED_FIRST
        accounts = {
            "entries_acknowledged_total": totals["entries"],
            "texts_finished_total": totals["texts out"],
            "alerts_raised_total": totals["alerts out"],
            "dead_letters_total": totals["dead letters out"],
            "late_events_total": totals["late"],
            "entries_lost_total": 0,
        }
        ranges = {name: (account, account) for name, account in accounts.items()}
        # An event that became a dead letter is counted only if its type could be read.
        ranges["events_total"] = (totals["events"] - totals["dead letters out"], totals["events"])
        counted: dict[str, float] = {}
        for name in ranges:
            counted[name] = await prometheus.grown(f"deltaloom_{name}", seconds)
        stored = await prometheus.latest("deltaloom_stored_counts_total", seconds, "count")
        of_stored = {
            "late": totals["late"],
            "contradicted": totals["contradictions"],
            "without_effect": sum(count for name, count in totals.items() if name.startswith("type:")),
            "lost": 0,
        }
        stored_ranges = {name: (account, account) for name, account in of_stored.items()}

        def wrong(what: str) -> None:
            self.verdict.violate("wrong metric", what)

        compare(counted, ranges, exact=not self.progress.faults.total(), wrong=wrong)
        compare(stored, stored_ranges, exact=True, wrong=wrong)
        self.progress.metrics |= {name: round(value) for name, value in (*counted.items(), *stored.items())}

    def _read_logs(self) -> None:
        import json  # noqa: PLC0415

        for path in sorted((*self.folder.glob("worker-*.log"), *self.folder.glob("relay-*.log"))):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if entry.get("level") in {"error", "critical"} or "exception" in entry:
                    last = str(entry.get("exception", "")).strip().rpartition("\n")[2]
                    self.progress.log_lines[f"{entry.get('event')}: {last}"[:160]] += 1


async def _first_failure_or_all(publishing: Awaitable[object], *beside: asyncio.Task[None]) -> None:
    """Wait for the producers, but fail at once if a task beside them fails."""
    main = asyncio.ensure_future(publishing)
    waiting = {main, *beside}
    try:
        while main in waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        await end_tasks(main)


def _entry(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


__all__: list[str] = ["Bench", "Progress"]
