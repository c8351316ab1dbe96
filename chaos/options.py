"""Options of a run, parsed from the command line."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.plan import INTERVALS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a run. Times are in seconds."""

    seed: str
    minutes: float = 2.0
    workers: int = 3
    producers: int = 3
    relays: int = 2
    intervals: Mapping[str, float] = field(default_factory=lambda: dict(INTERVALS))
    """Mean time between two faults of each kind."""
    claim_time: float = 2.0
    idle_timeout: float = 15.0
    settle_time: float = 120.0
    """Maximum time for texts to come out after the faults have ended, beyond the idle timeout."""
    backlog: int = 4000
    """Maximum number of unread entries; above it no new response is begun."""
    prometheus: bool = False
    """Scrape all processes with a Prometheus, and compare its counters with the accounts."""
    sabotage: str | None = None
    fail_fast: bool = False
    json: Path | None = None
    keep: bool = False

    @property
    def seconds(self) -> float:
        """Return how long faults are injected and entries published."""
        return self.minutes * 60


def _faults(text: str) -> dict[str, float]:
    if text in {"", "none"}:
        return {}
    intervals: dict[str, float] = {}
    for part in text.split(","):
        kind, _, seconds = part.partition("=")
        if kind not in INTERVALS:
            raise argparse.ArgumentTypeError(f"unknown fault {kind!r}: use {', '.join(INTERVALS)}")
        intervals[kind] = float(seconds) if seconds else INTERVALS[kind]
    return intervals


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Parse the command line; exit with a message if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Kill and disturb workers and server, and check that nothing is lost or repeated.",
        epilog="Exit code: 0 no violation, 1 violations, 2 the bench itself could not run.",
    )
    add = parser.add_argument
    add("--seed", default=None, help="seed of responses and faults (default: a new one, which is printed)")
    add("--minutes", type=float, default=2.0, help="duration of faults (default 2), followed by settling")
    add("--workers", type=int, default=3, help="worker processes (default 3)")
    add(
        "--relays",
        type=int,
        default=2,
        help="relay processes, with a receiver that fails (default 2)",
    )
    add("--producers", type=int, default=3, help="producers (default 3)")
    add(
        "--faults",
        type=_faults,
        default=dict(INTERVALS),
        metavar="KIND[=SECONDS],…",
        help="inject only these, with this mean interval; none: no faults. Default: "
        + ",".join(f"{kind}={seconds:g}" for kind, seconds in INTERVALS.items()),
    )
    add("--claim-time", type=float, default=2.0, help="the workers' claim time in seconds (default 2)")
    add("--idle-timeout", type=float, default=15.0, help="the workers' idle timeout in seconds (default 15)")
    add(
        "--settle-time",
        type=float,
        default=120.0,
        help="maximum seconds for texts to come out at the end, beyond the idle timeout, and then between "
        "two alerts delivered (default 120)",
    )
    add(
        "--prometheus",
        action="store_true",
        help="scrape all processes with a real Prometheus, and compare its counters with the accounts",
    )
    add("--json", type=Path, metavar="FILE", help="also write the result to this file, as JSON")
    add("--fail-fast", action="store_true", help="stop at the first violation that is found during the run")
    add("--keep", action="store_true", help="keep the folder with the workers' logs")
    add("--sabotage", choices=("finish-guard", "acknowledgement"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    return Options(
        seed=given.seed or secrets.token_hex(4),
        minutes=given.minutes,
        workers=given.workers,
        producers=given.producers,
        relays=given.relays,
        intervals=given.faults,
        claim_time=given.claim_time,
        idle_timeout=given.idle_timeout,
        settle_time=given.settle_time,
        prometheus=given.prometheus,
        sabotage=given.sabotage,
        fail_fast=given.fail_fast,
        json=given.json,
        keep=given.keep,
    )
