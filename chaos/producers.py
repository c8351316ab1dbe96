"""Compare the losses of disturbed producers with their reports.

Producers are killed, frozen and forked; their server is killed, suspended, filled and flushed.

`python -m chaos.producers [--minutes 1] [--producers 4] [--seed X]`, or `make producers`, runs producers with
`deltaloom.Publisher` behind a proxy that loses replies. Then a worker rebuilds all texts from what arrived.
The exit code is 1 if

- a producer that was not killed lost other events than its counters say, by process and by response;
- a delta is in a text twice;
- a text is called verified that differs from what the producer's caller got;
- an entry became a dead letter;
- the worker stops before all responses are finished or abandoned.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import signal
import sys
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from chaos.ending import end_tasks, run_to_the_end
from chaos.processes import Server
from chaos.proxy import Proxy
from chaos.rebuilding import rebuild
from deltaloom import StreamNames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

_NAMES: Final = StreamNames()
_WORD: Final = re.compile(r"<(\d+)>")


class Collector:
    """A reader that keeps every entry that was ever in the stream."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._last = b"0"
        self._reading = asyncio.Lock()
        self.entries: list[dict[bytes, bytes]] = []

    async def follow(self) -> None:
        """Read until cancelled."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self._server.client() as client:
                    while True:
                        await self.read(client)
                        await asyncio.sleep(0.05)
            await asyncio.sleep(0.1)

    async def read(self, client: Any) -> None:
        """Read what is new."""
        async with self._reading:
            while found := await client.xrange(_NAMES.deltas, min=b"(" + self._last, count=1_000):
                self._keep(found)

    async def flush(self) -> None:
        """Delete everything on the server, after reading it, in one step."""
        async with self._reading, self._server.client() as client:
            pipeline = client.pipeline(transaction=True)
            pipeline.xrange(_NAMES.deltas, min=b"(" + self._last)
            pipeline.flushall()
            found, _ = await pipeline.execute()
            self._keep(found)
            self._last = b"0"

    def _keep(self, found: Any) -> None:
        self.entries += [fields for _, fields in found]
        if found:
            self._last = found[-1][0]


class Disturbance:
    """The faults of a run."""

    def __init__(self, server: Server, proxy: Proxy, collector: Collector, chance: random.Random) -> None:
        self._server = server
        self._proxy = proxy
        self._collector = collector
        self._chance = chance
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.killed: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.is_over = False

    async def go_on(self) -> None:
        """Disturb until `is_over`. Each fault leaves the server well."""
        while not self.is_over:
            await asyncio.sleep(self._chance.uniform(0.3, 1.5))
            fault = self._chance.choice(self.faults())
            with contextlib.suppress(RedisError, OSError):
                await fault()
                self.counts[fault.__name__] += 1

    def faults(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return the faults to choose from."""
        return (
            self.kill_server,
            self.hang_server,
            self.fill_server,
            self.flush_server,
            self.lose_replies,
            self.lose_replies,
            self.freeze_producer,
            self.kill_producer,
        )

    async def kill_server(self) -> None:
        """Kill the server, and start it again."""
        await self._server.kill_and_restart(self._chance.uniform(0.1, 1.5))

    async def hang_server(self) -> None:
        """Suspend the server."""
        async with self._server.client() as client:
            pid = (await client.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._chance.uniform(0.3, 2.0))
        finally:
            os.kill(pid, signal.SIGCONT)

    async def fill_server(self) -> None:
        """Let the server refuse writes."""
        async with self._server.client() as client:
            await client.config_set("maxmemory", "1")
            try:
                await asyncio.sleep(self._chance.uniform(0.3, 2.0))
            finally:
                await client.config_set("maxmemory", "0")

    async def flush_server(self) -> None:
        """Delete everything on the server."""
        await self._collector.flush()

    async def lose_replies(self) -> None:
        """Drop replies, then reset the connections."""
        await self._proxy.mute(0.7, self._chance.uniform(0.05, 0.6))

    async def freeze_producer(self) -> None:
        """Suspend a producer."""
        process = self._some_producer()
        if process is not None:
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(self._chance.uniform(0.2, 1.5))
            finally:
                process.send_signal(signal.SIGCONT)

    async def kill_producer(self) -> None:
        """Kill one of the producers that may be killed."""
        process = self._some_producer(only="mortal")
        if process is not None:
            process.kill()

    def _some_producer(self, only: str = "") -> asyncio.subprocess.Process | None:
        alive = [
            name
            for name, process in self.processes.items()
            if process.returncode is None and name.startswith(only)
        ]
        if not alive:
            return None
        name = self._chance.choice(alive)
        if only:
            self.killed.add(name)
        return self.processes[name]


class Offered:
    """The events that one producer's caller got, and the counters of its publisher."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.events: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed producer
                response_id, number, event = json.loads(line)
                self.events[response_id][number] = event
        counters = path.with_suffix(".counters")
        self.counters: dict[str, Any] | None = json.loads(counters.read_text()) if counters.exists() else None

    @property
    def count(self) -> int:
        """The number of events."""
        return sum(map(len, self.events.values()))


def events_by_response(entries: list[dict[bytes, bytes]]) -> dict[str, list[dict[str, Any]]]:
    """Return the events of entries by response id."""
    events = defaultdict[str, list[dict[str, Any]]](list)
    for fields in entries:
        content = json.loads(fields[b"event"])
        response_id = fields.get(b"response_id", b"").decode()
        events[response_id] += content if isinstance(content, list) else [content]
    return events


def arrived_of(events: list[dict[str, Any]]) -> tuple[Counter[int], int]:
    """Return how often each delta's word is in distinct deltas, and the number of other distinct events."""
    deltas = {(event["sequence_number"], event["delta"]) for event in events if "delta" in event}
    others = {
        event["sequence_number"] for event in events if "delta" not in event and "sequence_number" in event
    }
    return Counter(int(word) for _, text in deltas for word in _WORD.findall(text)), len(others)


def violations(offered: Offered, arrived: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Yield what is wrong with the accounts of one producer."""
    missing: Counter[str] = Counter()
    for response_id, events in offered.events.items():
        words, others = arrived_of(arrived.get(response_id, []))
        doubled = [word for word, times in words.items() if times > 1]
        if doubled:
            yield f"{response_id}: deltas {doubled[:5]} arrived twice"
        if unknown := set(words) - events.keys():
            yield f"{response_id}: deltas {sorted(unknown)[:5]} were never offered"
        missing[response_id] = len(events) - len(words) - others
    if offered.counters is not None:
        yield from _wrong_counts(offered.name, offered.count, offered.counters, missing)


def _wrong_counts(
    name: str, offered: int, counters: Mapping[str, Any], missing: Counter[str]
) -> Iterator[str]:
    """Yield the counts that differ from what was offered and what is missing."""
    dropped = sum(counters["dropped"].values())
    uncertain = counters["dropped"].get("unconfirmed", 0)
    if counters["seen"] != offered:
        yield f"{name}: {offered} events were offered, {counters['seen']} seen"
    if counters["seen"] != counters["published"] + counters["merged"] + dropped or counters["waiting"]:
        yield f"{name}: the counters do not add up: {counters}"
    if counters["reasons"] != counters["dropped"]:
        yield f"{name}: {counters['reasons']} reported to the owner, {counters['dropped']} counted"
    if not dropped - uncertain <= missing.total() <= dropped:
        yield f"{name}: {missing.total()} events are missing, {counters['dropped']} were counted"
    for response_id, count in missing.items():
        reported = counters["responses"].get(response_id, 0)
        if not reported - uncertain <= count <= reported:
            yield f"{response_id}: {count} events are missing, {reported} were reported"


def wrong_texts(texts: list[dict[str, Any]], offered: Mapping[str, Mapping[int, Any]]) -> Iterator[str]:
    """Yield texts that are called verified and are not what the caller got."""
    for text in texts:
        events = offered.get(text["response_id"], {})
        whole = "".join(
            event["delta"]
            for _, event in sorted(events.items())
            if "delta" in event and event["output_index"] == text["output_index"]
        )
        if text["integrity"] == "verified" and text["text"] != whole:
            yield f"{text['response_id']}: a verified text differs from what the caller got"


async def run(options: argparse.Namespace, folder: Path) -> int:
    """Run, compare, print; return the number of violations."""
    server = Server(folder)
    await server.start()
    collector = Collector(server)
    proxy = Proxy(server.port)
    disturbance = Disturbance(server, proxy, collector, random.Random(options.seed))
    try:
        async with proxy.running():
            following = asyncio.create_task(collector.follow())
            disturbing = asyncio.create_task(disturbance.go_on())
            try:
                await _produce(options, folder, proxy.port, disturbance)
                disturbance.is_over = True  # a fault that is cut off would leave the server unwell
                await disturbing
            finally:
                await end_tasks(following, disturbing)
            async with server.client() as client:
                await client.ping()
                await client.config_set("maxmemory", "0")
                await collector.read(client)
        return await _judge(folder, server, collector, disturbance)
    finally:
        for process in disturbance.processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()
        await server.kill()


async def _produce(options: argparse.Namespace, folder: Path, port: int, disturbance: Disturbance) -> None:
    seconds = options.minutes * 60
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    url = f"redis://127.0.0.1:{port}"
    made = 0
    while loop.time() < until:
        alive = [p for p in disturbance.processes.values() if p.returncode is None]
        if len(alive) < options.producers:
            name = f"{'mortal' if made % 2 else 'steady'}{made}"
            left = min(until - loop.time(), chance_seconds(options.seed, made))
            made += 1
            disturbance.processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "chaos.producing", url, str(folder), name, str(left), options.seed)
            )
        await asyncio.sleep(0.1)
    for process in disturbance.processes.values():
        await process.wait()


def chance_seconds(seed: str, made: int) -> float:
    """Return for how long a producer lives, in seconds."""
    return random.Random(f"{seed}:{made}").uniform(5, 20)


def offered_in(folder: Path) -> list[Offered]:
    """Return what each producer has written down."""
    return [Offered(path) for path in sorted(folder.glob("*.offered"))]


async def _judge(folder: Path, server: Server, collector: Collector, disturbance: Disturbance) -> int:
    arrived = events_by_response(collector.entries)
    found: list[str] = []
    offered: dict[str, dict[int, Any]] = {}
    totals: Counter[str] = Counter()
    for producer in offered_in(folder):
        offered.update(producer.events)
        found += violations(producer, arrived)
        parent = producer.name.split("-")[0]
        if producer.counters is None and parent not in disturbance.killed:
            found.append(f"{producer.name}: ended without its counters")
        totals["producers"] += 1
        totals["offered"] += producer.count
        if producer.counters is not None:
            totals["with counters"] += 1
            for name in ("seen", "published", "merged"):
                totals[name] += producer.counters[name]
            totals.update({f"dropped {n}": count for n, count in producer.counters["dropped"].items()})
    texts, letters, left = await rebuild(server, collector.entries)
    found += wrong_texts(texts, offered)
    if letters:
        found.append(f"{letters} dead letters")
    if left is not None:
        found.append(f"the worker does not go on: {left}")
    keys = Counter((text["response_id"], text["kind"], text["output_index"]) for text in texts)
    found += [f"{key}: written {times} times" for key, times in keys.items() if times > 1]
    totals.update(f"texts {text['integrity']}" for text in texts)
    print(f"faults: {dict(disturbance.counts)}")  # noqa: T201 - output of a command
    print(f"entries: {len(collector.entries)}; {dict(totals)}")  # noqa: T201 - the same
    for line in found[:50]:
        print(f"VIOLATION {line}")  # noqa: T201 - the same
    print(f"{len(found)} violations")  # noqa: T201 - the same
    return len(found)


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.producers", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--producers", type=int, default=4)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    options = parser.parse_args()
    print(f"seed {options.seed}")  # noqa: T201 - output of a command
    with TemporaryDirectory(prefix="deltaloom-producers-") as folder:
        return 1 if run_to_the_end(run(options, Path(folder))) else 0


if __name__ == "__main__":
    sys.exit(main())
