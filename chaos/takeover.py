"""Measurement: time until other workers have taken over the entries of a worker killed with `kill -9`.

It also counts the texts that were late meanwhile. Only texts in doubt should be late: those with entries of
the dead worker, and those without a confirmation.

`python -m chaos.takeover [--kills N] [--claim-time SECONDS] [--rate EVENTS]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from chaos.ending import end_tasks, run_to_the_end
from chaos.generator import TAG, make_response
from chaos.observer import pending_of
from chaos.processes import Server, Workers, WorkerSlot, worker_command
from deltaloom import GROUP, StreamNames

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

_SEED = "takeover"

_LATE_MS = 2000
"""Milliseconds from its closing entry after which a text counts as late.

Most texts take some milliseconds. A text that only a sweep finds, while another worker is stuck, takes up to
the sweep interval longer.
"""

_REASONS = _HELD, _UNSURE, _COPIED, _UNNUMBERED, _NAMED, _CONTEXT, _CERTAIN = (
    "entries held",
    "text in doubt",
    "only copied",
    "no numbers",
    "ids differ",
    "context in doubt",
    "certain",
)
"""Reasons of a late text, in order:

the dead worker held entries of its response; no event confirms it; only the response's final copy confirms
it; its deltas have no numbers to identify repeats; its events have several item ids; its context may be
incomplete without `response.created`; none of these.
"""

_HOLDS_WITHIN = 20.0
_WARM_UP = 4.0


@dataclass(slots=True)
class Kill:
    """The effects of one kill."""

    entries: int
    seconds: float = 0.0
    responses: set[str] = field(default_factory=set)
    """Names of the responses with entries that the dead worker held."""
    at_ms: int = 0
    until_ms: int = 0
    texts: int = 0
    late: Counter[str] = field(default_factory=Counter)
    """Counts of late texts, by reason."""
    latest_ms: int = 0


async def _publish(client: Redis, stream: str, rate: float) -> None:
    """Publish several responses at once, at a steady rate of entries, until cancelled."""
    rng = random.Random(1)
    number = 0
    streams: list[list[dict[Any, Any]]] = []
    began, sent = time.monotonic(), 0
    while True:
        while len(streams) < 50:  # noqa: PLR2004 - number of open responses
            streams.append([dict(entry.fields) for entry in make_response(_SEED, 0, number).entries][::-1])
            number += 1
        pipeline = client.pipeline(transaction=False)
        due = min(int((time.monotonic() - began) * rate) - sent, 200)
        for _ in range(due):
            entries = rng.choice(streams)
            pipeline.xadd(stream, entries.pop())
            if not entries:
                streams.remove(entries)
            if not streams:
                break
        if due > 0:
            sent += len(await pipeline.execute())
        await asyncio.sleep(0.005)


async def _kill_one_with_entries(client: Any, workers: Workers, slot: WorkerSlot, stream: str) -> Kill:
    """Suspend the worker repeatedly until it holds entries, then kill it."""
    deadline = time.monotonic() + _HOLDS_WITHIN
    process = slot.process
    if process is None:
        raise RuntimeError("there is no worker to kill")
    while time.monotonic() < deadline:
        workers.stop(slot)
        await asyncio.sleep(0.02)
        held = await pending_of(client, stream, process.pid)
        if held:
            kill = Kill(held)
            part = f"-{process.pid}-"
            for each in await client.xinfo_consumers(stream, GROUP):
                if part in each["name"].decode():
                    for entry in await client.xpending_range(stream, GROUP, "-", "+", 5000, each["name"]):
                        for _, fields in await client.xrange(
                            stream, entry["message_id"], entry["message_id"]
                        ):
                            kill.responses.add(fields[TAG.encode()].decode().rpartition("/")[0])
            seconds, micros = await client.time()
            kill.at_ms = seconds * 1000 + micros // 1000
            await workers.kill(slot)
            return kill
        workers.go_on(slot, process)
        await asyncio.sleep(random.uniform(0.005, 0.05))
    raise RuntimeError("the worker never held an entry: publish more")


async def _until_taken_over(client: Any, stream: str, pid: int, kill: Kill) -> None:
    began = time.monotonic()
    holds = kill.entries
    while holds:
        await asyncio.sleep(0.01)
        holds = await pending_of(client, stream, pid)
    kill.seconds = time.monotonic() - began
    seconds, micros = await client.time()
    kill.until_ms = seconds * 1000 + micros // 1000


async def measure(kills: int, claim_time: float, rate: float) -> list[Kill]:
    """Kill one of two workers this many times, and return the effects."""
    done: list[Kill] = []
    names = StreamNames()
    with TemporaryDirectory(prefix="deltaloom-chaos-") as name:
        folder = Path(name)
        server = Server(folder)
        environment = {
            "REDIS_URL": f"redis://127.0.0.1:{server.port}",
            "DELTALOOM_CLAIM_TIME": str(claim_time),
            "DELTALOOM_LOG_LEVEL": "warning",
        }
        died: list[str] = []
        workers = Workers(folder, worker_command(None), environment, died.append)
        try:
            await server.start()
            async with server.client() as client, server.client() as producer:
                workers.slots = [WorkerSlot(0), WorkerSlot(1)]
                for slot in workers.slots:
                    await workers.start(slot)
                publishing = asyncio.create_task(_publish(producer, names.deltas, rate))
                try:
                    for n in range(kills):
                        await asyncio.sleep(_WARM_UP)
                        victim = workers.slots[n % 2]
                        pid = victim.process.pid if victim.process else 0
                        kill = await _kill_one_with_entries(client, workers, victim, names.deltas)
                        await _until_taken_over(client, names.deltas, pid, kill)
                        done.append(kill)
                        await asyncio.sleep(1.0)
                        await workers.start(victim)
                finally:
                    await end_tasks(publishing)
                await asyncio.sleep(claim_time)
                await _which_were_late(client, names, done)
        finally:
            await workers.kill_all()
            await server.kill()
    if died:
        raise RuntimeError(died[0])
    return done


async def _which_were_late(client: Any, names: StreamNames, kills: Sequence[Kill]) -> None:
    for entry_id, fields in await client.xrange(names.assembled):
        text = json.loads(fields[b"__data__"])
        closed_ms = datetime.fromisoformat(text["finished_at"]).timestamp() * 1000
        delay = int(entry_id.decode().partition("-")[0]) - closed_ms
        owner = text["response_id"] or (text["item_id"] or "").removeprefix("item_").rpartition("_")[0]
        for kill in kills:
            if kill.at_ms - 1000 <= closed_ms <= kill.until_ms:
                kill.texts += 1
                if delay > _LATE_MS:
                    kill.latest_ms = max(kill.latest_ms, int(delay))
                    kill.late[_why(text, owner, kill)] += 1


def _why(text: Mapping[str, Any], owner: str, kill: Kill) -> str:
    if owner in kill.responses:
        return _HELD
    if text["integrity"] != "verified":
        return _UNSURE
    _, producer, number = owner.rsplit("-", 2)
    response = make_response(_SEED, int(producer), int(number))
    place = (text["output_index"], text["content_index"], text["kind"])
    if any(each.copied and tuple(each.part)[2:] == place for each in response.expected.texts):
        return _COPIED
    first, last = text["first_sequence_number"], text["last_sequence_number"]
    if first is None or (first == last and text["delta_count"] > 1):
        return _UNNUMBERED
    published = [_bytes(value) for entry in response.entries for value in entry.fields.values()]
    if any(re.search(rf"item_{owner}_\d+_\d+".encode(), value) for value in published):
        return _NAMED
    created = any(b"gpt-created" in value for value in published)
    return _CERTAIN if created or text["response_id"] is None else _CONTEXT


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line per kill. Return 1 if a certain text was late."""
    parser = argparse.ArgumentParser(prog="python -m chaos.takeover", description=__doc__)
    parser.add_argument("--kills", type=int, default=6, help="number of kills (default 6)")
    parser.add_argument(
        "--claim-time",
        type=float,
        default=15.0,
        help="the workers' claim time in seconds (default 15, as in production)",
    )
    parser.add_argument("--rate", type=float, default=1000.0, help="entries per second (default 1000)")
    given = parser.parse_args(arguments)
    kills = run_to_the_end(measure(given.kills, given.claim_time, given.rate))
    write = sys.stdout.write
    write("entries held  taken over after  texts closed meanwhile")
    write("".join(f"  late: {why}" for why in _REASONS) + "  longest\n")
    for kill in kills:
        write(f"{kill.entries:>12}  {kill.seconds:>14.2f} s  {kill.texts:>22}")
        write("".join(f"  {kill.late[why]:>{len(why) + 6}}" for why in _REASONS))
        write(f"  {kill.latest_ms / 1000:>5.2f} s\n")
    seconds = [kill.seconds for kill in kills]
    write(f"taken over after: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s\n")
    return int(any(kill.late[_CERTAIN] for kill in kills))


if __name__ == "__main__":
    sys.exit(main())
