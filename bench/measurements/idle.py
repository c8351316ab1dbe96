"""Measurement: cost of a worker that waits on an empty server, without any traffic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from bench import counters
from bench.competitors import OURS
from bench.ground import wait
from bench.processes import Workers
from deltaloom.streams import GROUP, Partitions

if TYPE_CHECKING:
    from bench.ground import Ground
    from bench.stage import Stage

NAME = "idle"
PARTITIONS, _QUICK_PARTITIONS = (1, 64), (1, 4)
WORKER_CPU, SERVER_CPU = "worker CPU, %", "server CPU, %"
COMMANDS = "commands/s"
CONNECTIONS = "connections"
RSS = "worker RSS, MB"
_SECONDS, _QUICK_SECONDS = 20, 1
_SETTLES, _QUICK_SETTLES = 5, 1
"""Seconds after its first reads until a worker does only what it does all day."""
_READS_WITHIN = 60.0


def case_of(partitions: int) -> str:
    """Return the name of the case in the table."""
    return "1 partition" if partitions == 1 else f"{partitions} partitions"


def measure(stage: Stage) -> None:
    """Start a worker with one partition and one with many, and look at what each does."""
    if not stage.takes_part(OURS):
        return
    seconds = stage.options.scaled(_SECONDS, _QUICK_SECONDS)
    stage.results.notes[NAME] = (
        f"One worker process on an empty server, for {seconds} s after it has settled. "
        "CPU is in % of a core, and commands include those in scripts."
    )
    for partitions in _QUICK_PARTITIONS if stage.options.quick else PARTITIONS:
        for _ in stage.rounds(case_of(partitions)):
            _run(stage, partitions, seconds)


def _run(stage: Stage, partitions: int, seconds: float) -> None:
    place, case = stage.place, case_of(partitions)
    place.clear()
    streams = Partitions(partitions, place.names.prefix).all
    before = place.connections()
    with Workers(OURS, place, environment={"DELTALOOM_PARTITIONS": str(partitions)}) as workers:

        def all_read() -> bool:
            workers.check()
            return all(_is_read(place, names.deltas) for names in streams)

        wait(all_read, _READS_WITHIN, f"{OURS.name} reads {case}")
        time.sleep(stage.options.scaled(_SETTLES, _QUICK_SETTLES))
        start = counters.read(place, workers)
        time.sleep(seconds)
        used = counters.read(place, workers).since(start)
        figures = {
            WORKER_CPU: 100 * used.worker_cpu / used.at,
            SERVER_CPU: 100 * used.server_cpu / used.at,
            COMMANDS: used.commands / used.at,
            CONNECTIONS: place.connections() - before,
            RSS: workers.rss() / 1e6,
        }
    for what, value in figures.items():
        stage.add(case, OURS.name, what, value)
    described = ", ".join(f"{what} {value:.4g}" for what, value in figures.items())
    stage.progress.say(f"{NAME}, {case}: {described}")


def _is_read(place: Ground, stream: str) -> bool:
    """Return whether a consumer of the group has read a stream, if only to find it empty."""
    try:
        return bool(place.client.xinfo_consumers(stream, GROUP))
    except ResponseError:  # there is no stream or no group yet
        return False
