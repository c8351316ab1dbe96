"""Compare what clients get through disturbed taps, and their copies, with what the upstream sent.

Taps and their copiers are killed, frozen and stopped; their server is killed, suspended, filled and flushed.

`python -m chaos.taps [--minutes 1] [--taps 2] [--clients 8] [--seed X]`, or `make taps`, sends requests
through taps whose server is behind a proxy that loses replies. Then a worker rebuilds all texts from what
arrived. The exit code is 1 if

- a client gets other bytes than the upstream sent, or its answer breaks off although its tap was not killed;
- the books of a tap that was stopped do not add up, or have less than is missing;
- a delta is in a text twice, or in another response's;
- a text is called verified that differs from what the client got;
- a tap without losses has an answer whose texts are not all verified;
- an entry became a dead letter, or the worker stops before all responses are finished or abandoned.
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
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from chaos.ending import end_tasks, run_to_the_end
from chaos.processes import BenchError, Server
from chaos.producers import Collector, Disturbance, events_by_response
from chaos.proxy import Proxy
from chaos.rebuilding import rebuild
from chaos.tap_traffic import Clients, TapLife, upstream
from embedded.free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from chaos.tap_traffic import Answer

_WORD: Final = re.compile(r"<(\d+)\.(\d+)>")
_LISTENS_WITHIN: Final = 60.0
_ENDS_WITHIN: Final = 60.0
_LIVES: Final = (6.0, 20.0)
"""Seconds after which a tap is stopped by SIGTERM, and another process takes its port."""


class TapSlot:
    """A port, and the processes of a tap that listen there one after the other."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._name = name
        self._folder = folder
        self.port = free_port()
        self._environment = {**environment, "DELTALOOM_TAP_LISTEN": f"127.0.0.1:{self.port}"}
        self.lives: list[TapLife] = []
        self.process: asyncio.subprocess.Process | None = None
        self.is_running = asyncio.Event()
        """Set once the first process listens."""

    @property
    def life(self) -> TapLife:
        """The current process."""
        return self.lives[-1]

    async def keep_running(self, chance: random.Random, until: float) -> None:
        """Run one process after the other until a time of the event loop's clock; stop the last one."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            process = await self._start()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), min(chance.uniform(*_LIVES), until - loop.time()))
            await self._stop()

    async def _start(self) -> asyncio.subprocess.Process:
        life = TapLife(f"{self._name}.{len(self.lives)}")
        self.lives.append(life)
        log = self._folder / f"{life.name}.log"
        with log.open("wb") as opened:
            self.process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", "tap"),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=opened,
                start_new_session=True,
            )
        async with asyncio.timeout(_LISTENS_WITHIN):
            while b"tap started" not in log.read_bytes():
                if process.returncode is not None:  # killed while it started
                    return process
                await asyncio.sleep(0.05)
        life.is_listening = True
        self.is_running.set()
        return process

    async def _stop(self) -> None:
        """Stop the process with SIGTERM, and read its books."""
        process, life = self.process, self.life
        if process is None:
            return
        life.is_stopping = True
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_ENDS_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        lines = (self._folder / f"{life.name}.log").read_text(errors="replace").splitlines()
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said.get("event") == "tap stopped":
                    life.books = said

    def kill(self) -> None:
        """Kill the process."""
        if self.process is not None and self.process.returncode is None and self.lives:
            self.life.is_killed = True
            self.process.kill()

    def copier(self) -> int | None:
        """Return the process id of the copier; None if there is none."""
        if self.process is None:
            return None
        pid = self.process.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return int(children[0]) if children else None
        return None


class TapDisturbance(Disturbance):
    """The faults of a run with taps."""

    slots: Sequence[TapSlot] = ()

    def faults(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return the faults to choose from."""
        return (
            *(self.kill_server, self.hang_server, self.fill_server, self.flush_server, self.lose_replies),
            *(self.kill_tap, self.kill_copier, self.freeze_copier, self.freeze_tap),
        )

    async def kill_tap(self) -> None:
        """Kill a forwarder, but never the first one, whose books must be whole at its end."""
        self._chance.choice(self.slots[1:] or self.slots).kill()

    async def kill_copier(self) -> None:
        """Kill a copier."""
        pid = self._chance.choice(self.slots).copier()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def freeze_copier(self) -> None:
        """Suspend a copier."""
        await self._freeze(self._chance.choice(self.slots).copier())

    async def freeze_tap(self) -> None:
        """Suspend a forwarder."""
        process = self._chance.choice(self.slots).process
        await self._freeze(None if process is None or process.returncode is not None else process.pid)

    async def _freeze(self, pid: int | None) -> None:
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._chance.uniform(0.2, 2.0))
            finally:
                os.kill(pid, signal.SIGCONT)


class Copies:
    """Copies as they arrived, by the number of the answer."""

    def __init__(self, entries: Sequence[dict[bytes, bytes]]) -> None:
        references = {
            fields[b"response_id"].decode(): int(fields[b"reference"])
            for fields in entries
            if b"reference" in fields
        }
        self.words: dict[int, Counter[int]] = {}
        """Number of distinct deltas with each word of an answer."""
        self.others: dict[int, int] = {}
        """Distinct events that are no deltas."""
        self.found: list[str] = []
        """Copies that have words of others, or words twice, and answers that were copied twice."""
        for response_id, events in events_by_response(list(entries)).items():
            self._take(response_id, events, references.get(response_id))

    def _take(self, response_id: str, events: list[dict[str, Any]], reference: int | None) -> None:
        deltas = {(event["sequence_number"], event["delta"]) for event in events if "delta" in event}
        others = {event.get("sequence_number") for event in events if "delta" not in event} - {None}
        words = [(int(answer), int(place)) for _, text in deltas for answer, place in _WORD.findall(text)]
        answers = {answer for answer, _ in words} | ({reference} - {None})
        if len(answers) != 1:
            if answers:
                self.found.append(f"{response_id}: has words of the answers {sorted(answers, key=str)}")
            return
        number = answers.pop()
        assert number is not None  # noqa: S101 - for mypy
        if number in self.words:
            self.found.append(f"answer {number}: was copied twice")
        self.words[number] = Counter(place for _, place in words)
        self.others[number] = len(others)
        if doubled := [place for place, times in self.words[number].items() if times > 1]:
            self.found.append(f"answer {number}: deltas {doubled[:5]} arrived twice")

    def missing(self, answer: Answer) -> int:
        """Return the number of events that did not arrive."""
        number = answer.number
        return answer.event_count - len(self.words.get(number, ())) - self.others.get(number, 0)


def wrong_books(life: TapLife, copies: Copies) -> Iterator[str]:
    """Yield what is wrong with the books of a tap that was not killed."""
    books = life.books
    if books is None:
        yield f"{life.name}: ended without its books"
        return
    name, copier = life.name, books["copier"]
    dropped_bytes = sum(books["bytes_dropped"].values())
    dropped = sum(copier.get("dropped", {}).values())
    size = sum(len(answer.body) for answer in life.answers)
    sums = {
        "bytes to clients": (life.received, books["bytes_to_clients"]),
        "bytes of answers": (size, books["bytes_from_upstreams"]),
        "bytes that were delivered": (
            books["bytes_from_upstreams"],
            books["bytes_to_clients"] + books["bytes_undelivered"],
        ),
        "bytes copied": (books["bytes_copied"], books["bytes_sent_to_copier"] + dropped_bytes),
        "bytes taken": (
            books["bytes_sent_to_copier"],
            copier.get("taken_bytes", 0) + books["bytes_lost_with_copier"],
        ),
        "events": (
            copier.get("seen", 0),
            copier.get("published", 0) + copier.get("merged", 0) + dropped,
        ),
    }
    for what, (first, second) in sums.items():
        if first != second:
            yield f"{name}: {what} do not add up: {first}, {second}"
    missing = sum(copies.missing(answer) for answer in life.answers)
    if is_exact(books):
        uncertain = copier.get("dropped", {}).get("unconfirmed", 0)
        if not dropped - uncertain <= missing <= dropped:
            yield f"{name}: {missing} events are missing, {copier.get('dropped', {})} were counted"


def is_exact(books: Mapping[str, Any]) -> bool:
    """Return True if all losses are counted as events: no piece was dropped, and no copier killed.

    What a killed copier had not reported is counted by its last report, or in bytes.
    """
    bytes_lost = sum(books["bytes_dropped"].values()) + books["bytes_lost_with_copier"]
    is_killed = books["copier_restarts"] or "copier_gone" in books["copier"].get("dropped", {})
    return not (bytes_lost or is_killed)


def has_losses(books: Mapping[str, Any]) -> bool:
    """Return True if the books say that something was lost."""
    return not is_exact(books) or bool(books["copier"].get("dropped"))


def wrong_texts(lives: Sequence[TapLife], texts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield texts that are called verified and are not the upstream's, and those that are missing."""
    kinds = {"reasoning": "reasoning_content", "refusal": "refusal", "output_text": "content"}
    verified: dict[int, set[str]] = defaultdict(set)
    answers = {answer.number: answer for life in lives for answer in life.answers}
    for text in texts:
        found = {int(answer) for answer, _ in _WORD.findall(text["text"])}
        if text["integrity"] != "verified" or not found:
            continue
        number = min(found)
        name = kinds[text["kind"]]
        if number not in answers or text["text"] != answers[number].texts.get(name):
            yield f"answer {number}: the verified {text['kind']} is not what the client got"
        verified[number].add(name)
    for life in lives:
        if life.books is not None and not has_losses(life.books):
            for answer in life.answers:
                if not answer.is_broken and verified[answer.number] != set(answer.texts):
                    yield f"answer {answer.number}: no loss, but not all of its texts are verified"


async def run(options: argparse.Namespace, folder: Path) -> int:
    """Run, compare, print; return the number of violations."""
    server = Server(folder)
    await server.start()
    collector, proxy = Collector(server), Proxy(server.port)
    disturbance = TapDisturbance(server, proxy, collector, random.Random(options.seed))
    loop = asyncio.get_running_loop()
    until = loop.time() + options.minutes * 60
    slots: list[TapSlot] = []
    clients = Clients(options.seed, lambda: {slot.port: slot.life for slot in slots})
    try:
        async with proxy.running(), upstream(options.seed) as url:
            slots += _slots(options.taps, folder, url, proxy.port)
            keeping = [
                asyncio.create_task(slot.keep_running(random.Random(f"{options.seed}:{number}"), until))
                for number, slot in enumerate(slots)
            ]
            tasks = [*keeping, asyncio.create_task(collector.follow())]
            try:
                await _until_running(slots, keeping)
                disturbance.slots = slots
                tasks.append(disturbing := asyncio.create_task(disturbance.go_on()))
                await asyncio.gather(*(clients.go_on(until) for _ in range(options.clients)))
                disturbance.is_over = True
                await disturbing
                await asyncio.gather(*keeping)
            finally:
                await end_tasks(*tasks)
            async with server.client() as client:
                await client.config_set("maxmemory", "0")
                await collector.read(client)
        return await _judge(server, collector, disturbance, clients)
    finally:
        for slot in slots:
            slot.kill()
        await server.kill()


async def _until_running(slots: Sequence[TapSlot], keeping: Sequence[asyncio.Task[None]]) -> None:
    """Wait until each tap listens.

    Raises:
        BenchError: one of them never does.
        TimeoutError: one of them takes too long.
    """
    running = asyncio.gather(*(slot.is_running.wait() for slot in slots))
    waiting: set[asyncio.Future[Any]] = {running, *keeping}
    try:
        while waiting != {running}:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if running in done:
                return
        raise BenchError("a tap does not start")
    finally:
        await end_tasks(running)


def _slots(count: int, folder: Path, url: str, redis_port: int) -> list[TapSlot]:
    """Return the slots of the taps."""
    file = folder / "upstreams.toml"
    file.write_text(f'[upstreams.up]\nurl = "{url}"\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DELTALOOM_")}
    environment |= {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "DELTALOOM_TAP_UPSTREAMS": str(file),
        "DELTALOOM_TAP_PUBLISH_BUFFER": str(512 * 1024),
        "DELTALOOM_TAP_COPY_BUFFER": str(64 * 1024),
        "DELTALOOM_TAP_SHUTDOWN_TIMEOUT": "30",
        "DELTALOOM_LOG_FORMAT": "json",
    }
    return [TapSlot(f"tap{number}", folder, environment) for number in range(count)]


async def _judge(server: Server, collector: Collector, disturbance: TapDisturbance, clients: Clients) -> int:
    copies = Copies(collector.entries)
    lives = [life for slot in disturbance.slots for life in slot.lives]
    found = [*clients.found, *copies.found]
    totals: Counter[str] = Counter()
    for life in lives:
        totals["taps"] += 1
        totals["answers"] += len(life.answers)
        totals["bytes"] += life.received
        if life.is_killed:
            totals["killed taps"] += 1
            continue
        found += wrong_books(life, copies)
        if life.books is not None:
            totals["taps without losses"] += not has_losses(life.books)
            totals["events"] += life.books["copier"].get("seen", 0)
            totals.update({f"dropped {n}": c for n, c in life.books["copier"].get("dropped", {}).items()})
            totals.update({f"bytes {n}": c for n, c in life.books["bytes_dropped"].items()})
    texts, letters, unsettled = await rebuild(server, collector.entries)
    found += wrong_texts(lives, texts)
    if letters:
        found.append(f"{letters} dead letters")
    if unsettled is not None:
        found.append(f"the worker does not go on: {unsettled}")
    totals.update(f"texts {text['integrity']}" for text in texts)
    say = partial(print, flush=True)
    say(f"faults: {dict(disturbance.counts)}")
    say(f"entries: {len(collector.entries)}; {dict(totals)}")
    say(
        f"{clients.broken_with_tap} answers broke off as their tap was killed, {clients.refused} were refused"
    )
    for line in found[:50]:
        say(f"VIOLATION {line}")
    say(f"{len(found)} violations")
    return len(found)


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.taps", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--taps", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    options = parser.parse_args()
    print(f"seed {options.seed}")  # noqa: T201 - output of a command
    with TemporaryDirectory(prefix="deltaloom-taps-") as folder:
        return 1 if run_to_the_end(run(options, Path(folder))) else 0


if __name__ == "__main__":
    sys.exit(main())
