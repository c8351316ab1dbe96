"""Options of a run, parsed from the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_RESULTS = Path(__file__).parent / "results"
_ROUNDS, _QUICK_ROUNDS = 5, 1
_EVENTS, _QUICK_EVENTS = 400_000, 6_000


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a run."""

    only: tuple[str, ...]
    """Names of the measurements to make."""
    competitors: tuple[str, ...]
    """Names of the competitors that take part."""
    rounds: int = _ROUNDS
    events: int = _EVENTS
    """Number of events that a fast competitor gets per run; slower ones get a share of it."""
    output: Path = _RESULTS
    redis: str | None = None
    seed: str = "bench"
    quick: bool = False
    sabotage: bool = False

    def scaled(self, usual: int, quick: int) -> int:
        """Return a size that `--events` does not change: the usual one, or that of a quick run."""
        return quick if self.quick else usual


def parse(
    arguments: Sequence[str] | None, measurements: Sequence[str], competitors: Sequence[str]
) -> Options:
    """Parse the command line; exit with a message if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare the worker with what one would write otherwise, in one run on this machine.",
        epilog="Exit code: 0 all texts were right, 1 some were wrong, 2 the bench itself could not run. "
        "It does not depend on the measured times.",
    )
    add = parser.add_argument
    listed = ",".join
    add(
        "--only",
        type=_some_of(measurements),
        default=tuple(measurements),
        metavar="NAME,…",
        help=f"run only these measurements: {listed(measurements)}",
    )
    add(
        "--competitors",
        type=_some_of(competitors),
        default=tuple(competitors),
        metavar="NAME,…",
        help=f"run only these competitors: {listed(competitors)}",
    )
    add("--rounds", type=_positive, help=f"number of rounds, each with all competitors (default {_ROUNDS})")
    add("--events", type=_positive, help=f"events per run of a fast competitor (default {_EVENTS:,})")
    add(
        "--output",
        type=Path,
        default=_RESULTS,
        metavar="DIR",
        help="folder for the results (default bench/results)",
    )
    add("--redis", metavar="URL", help="an existing server (default: an embedded one, in memory)")
    add("--seed", default="bench", help="seed of the responses")
    add(
        "--quick",
        action="store_true",
        help="a small run that only checks that all works and the texts are right",
    )
    add("--sabotage", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    return Options(
        only=given.only,
        competitors=given.competitors,
        rounds=given.rounds or (_QUICK_ROUNDS if given.quick else _ROUNDS),
        events=given.events or (_QUICK_EVENTS if given.quick else _EVENTS),
        output=given.output,
        redis=given.redis,
        seed=given.seed,
        quick=given.quick,
        sabotage=given.sabotage,
    )


def _some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        given = {name.strip() for name in text.split(",")}
        unknown = given.difference(known)
        if unknown:
            listed = ", ".join(known)
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; use {listed}")
        return tuple(name for name in known if name in given)

    return names


def _positive(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise argparse.ArgumentTypeError("use a number of at least 1")
    return number
