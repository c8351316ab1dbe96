"""Options of a run, parsed from the command line."""

from __future__ import annotations

import argparse
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hostile import limits
from hostile.generators import GENERATORS, NAMES, RETRY_AFTER

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIX = (*(generator.name for generator in GENERATORS.values() if generator.in_mix), RETRY_AFTER)
_WARM_UP = (3.0, 15.0)
"""Minimum and maximum seconds of the phase without hostile load, which is a quarter of the other one."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a run. Times are in seconds."""

    seed: str
    minutes: float = 1.0
    workers: int = 2
    relays: int = 1
    producers: int = 3
    partitions: int = 0
    generators: tuple[str, ...] = _MIX
    rate: float = 1.05
    """Megabytes of hostile entries per second, of all generators together."""
    honest: float = 10.0
    """Honest responses begun per second."""
    idle_timeout: float = 15.0
    settle_time: float = 60.0
    late: float = limits.LATE_SECONDS
    late_delivery: float = limits.LATE_DELIVERY_SECONDS
    slowdown: float = limits.SLOWDOWN
    slow_command: float = limits.SLOW_COMMAND_MS
    per_byte: float = limits.STORED_PER_BYTE
    per_event: float = limits.STORED_PER_EVENT
    json: Path | None = None
    keep: bool = False

    @property
    def seconds(self) -> float:
        """Return how long hostile entries are published."""
        return self.minutes * 60

    @property
    def warm_up(self) -> float:
        """Return how long honest entries are published alone first."""
        least, most = _WARM_UP
        return min(max(least, self.seconds / 4), most)


_DEFAULT = Options(seed="")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown generator {','.join(unknown)!r}: use {', '.join(NAMES)}")
    return names


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not allowed: use a number above 0")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hostile",
        description="Send hostile entries next to honest load, and check that they harm only themselves.",
        epilog="Exit code: 0 no violation, 1 violations, 2 the bench itself could not run.",
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the generators, and exit")
    add("--only", type=_names, default=_MIX, metavar="NAME[,NAME]", help="run only these, each at its share")
    add("--without", type=_names, default=(), metavar="NAME[,NAME]", help="run all except these")
    add("--seed", default=None, help="seed of all entries (default: a new one, which is printed)")
    add(
        "--minutes",
        type=_positive,
        default=1.0,
        help="duration of hostile load (default 1), after a warm-up and before settling",
    )
    add("--workers", type=int, default=2, help="worker processes (default 2)")
    add("--relays", type=int, default=1, help="relay processes (default 1)")
    add("--producers", type=int, default=3, help="honest producers, in each partition (default 3)")
    add("--partitions", type=int, default=0, help="partitions (default 0: names without braces)")
    add(
        "--rate",
        type=_positive,
        default=_DEFAULT.rate,
        help=f"MB of hostile entries per second, for the whole mix (default {_DEFAULT.rate:g})",
    )
    add(
        "--honest",
        type=_positive,
        default=_DEFAULT.honest,
        help=f"honest responses per second (default {_DEFAULT.honest:g})",
    )
    add(
        "--idle-timeout",
        type=_positive,
        default=15.0,
        help="the workers' idle timeout in seconds (default 15)",
    )
    add(
        "--settle-time",
        type=_positive,
        default=60.0,
        help="maximum seconds for processing all entries, beyond the idle timeout (default 60)",
    )
    add(
        "--late",
        type=_positive,
        default=limits.LATE_SECONDS,
        help=f"maximum seconds for an honest text (default {limits.LATE_SECONDS:g})",
    )
    add(
        "--late-delivery",
        type=_positive,
        default=limits.LATE_DELIVERY_SECONDS,
        help=f"maximum seconds for delivering an honest alert (default {limits.LATE_DELIVERY_SECONDS:g})",
    )
    add(
        "--slowdown",
        type=_positive,
        default=_DEFAULT.slowdown,
        help=f"maximum ratio of honest texts' times, 99th percentile (default {_DEFAULT.slowdown:g})",
    )
    add(
        "--slow-command",
        type=_positive,
        default=_DEFAULT.slow_command,
        help=f"maximum ms of the server for a command (default {_DEFAULT.slow_command:g})",
    )
    add(
        "--stored-per-byte",
        type=_positive,
        default=limits.STORED_PER_BYTE,
        metavar="A",
        help=f"maximum bytes stored per hostile byte (default {limits.STORED_PER_BYTE:g})",
    )
    add(
        "--stored-per-event",
        type=_positive,
        default=limits.STORED_PER_EVENT,
        metavar="B",
        help=f"maximum bytes stored per hostile event, in addition (default {limits.STORED_PER_EVENT})",
    )
    add("--json", type=Path, metavar="FILE", help="also write the result to this file, as JSON")
    add("--keep", action="store_true", help="keep the folder with the workers' logs")
    return parser


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Parse the command line; exit if it is wrong, or after a list of the generators."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        for name in NAMES:
            sys.stdout.write(f"{name:<20} {described(name)}\n")
        raise SystemExit(0)
    if given.workers < 1 or given.producers < 1 or given.relays < 0 or given.partitions < 0:
        parser.error("use at least one worker and one producer, and no negative numbers")
    generators = tuple(name for name in given.only if name not in given.without)
    if not generators:
        parser.error("no generator is left: use --list to see all")
    return Options(
        seed=given.seed or secrets.token_hex(4),
        minutes=given.minutes,
        workers=given.workers,
        relays=given.relays,
        producers=given.producers,
        partitions=given.partitions,
        generators=generators,
        rate=given.rate,
        honest=given.honest,
        idle_timeout=given.idle_timeout,
        settle_time=given.settle_time,
        late=given.late,
        late_delivery=given.late_delivery,
        slowdown=given.slowdown,
        slow_command=given.slow_command,
        per_byte=given.stored_per_byte,
        per_event=given.stored_per_event,
        json=given.json,
        keep=given.keep,
    )


def described(name: str) -> str:
    """Return a description of a generator in one line."""
    if name == RETRY_AFTER:
        return "Answer each alert at a second destination with 429 or 503 and an odd Retry-After."
    generator = GENERATORS[name]
    return generator.what if generator.in_mix else f"{generator.what} Runs only if named."
