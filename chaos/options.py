"""What a run is asked for: read once from the command line."""

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
    """A run. Times in seconds."""

    seed: str
    minutes: float = 2.0
    workers: int = 3
    producers: int = 3
    relays: int = 2
    intervals: Mapping[str, float] = field(default_factory=lambda: dict(INTERVALS))
    """Of each kind of fault, the mean time between two."""
    claim_time: float = 2.0
    idle_timeout: float = 15.0
    settle_time: float = 120.0
    """How long texts may take to come out once the faults have ended, beyond the idle timeout."""
    backlog: int = 4000
    """Entries unread beyond which no new response is begun."""
    sabotage: str | None = None
    fail_fast: bool = False
    json: Path | None = None
    keep: bool = False

    @property
    def seconds(self) -> float:
        """How long faults are injected and entries published."""
        return self.minutes * 60


def _faults(text: str) -> dict[str, float]:
    if text in {"", "none"}:
        return {}
    intervals: dict[str, float] = {}
    for part in text.split(","):
        kind, _, seconds = part.partition("=")
        if kind not in INTERVALS:
            raise argparse.ArgumentTypeError(f"{kind!r} is no fault; there are {', '.join(INTERVALS)}")
        intervals[kind] = float(seconds) if seconds else INTERVALS[kind]
    return intervals


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; ends the process with a message where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Kill and disturb workers and server, and see whether anything is lost or doubled.",
        epilog="Exit code: 0 nothing was wrong, 1 something was, 2 the bench itself could not run.",
    )
    add = parser.add_argument
    add(
        "--seed", default=None, help="what is generated and what fails when; unset: a new one, which is named"
    )
    add("--minutes", type=float, default=2.0, help="how long (default 2); settling comes on top")
    add("--workers", type=int, default=3, help="worker processes (default 3)")
    add(
        "--relays",
        type=int,
        default=2,
        help="relays, with a receiver that fails (default 2; 0: none)",
    )
    add("--producers", type=int, default=3, help="producers (default 3)")
    add(
        "--faults",
        type=_faults,
        default=dict(INTERVALS),
        metavar="KIND[=SECONDS],…",
        help="only these, each with its mean interval; none: none. Default: "
        + ",".join(f"{kind}={seconds:g}" for kind, seconds in INTERVALS.items()),
    )
    add("--claim-time", type=float, default=2.0, help="the workers' claim time in seconds (default 2)")
    add("--idle-timeout", type=float, default=15.0, help="the workers' idle timeout in seconds (default 15)")
    add(
        "--settle-time",
        type=float,
        default=120.0,
        help="how long texts may take at the end, in seconds beyond the idle timeout (default 120)",
    )
    add("--json", type=Path, metavar="FILE", help="write the result there too")
    add("--fail-fast", action="store_true", help="end at the first violation that shows before the end")
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
        sabotage=given.sabotage,
        fail_fast=given.fail_fast,
        json=given.json,
        keep=given.keep,
    )
