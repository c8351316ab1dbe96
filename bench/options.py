"""What a run is asked for: read once from the command line."""

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
    """A run."""

    only: tuple[str, ...]
    """Measurements to make."""
    competitors: tuple[str, ...]
    """Who takes part."""
    rounds: int = _ROUNDS
    events: int = _EVENTS
    """Events that a fast competitor is given in a run; others get a share."""
    output: Path = _RESULTS
    redis: str | None = None
    seed: str = "bench"
    quick: bool = False
    sabotage: bool = False

    def scaled(self, usual: int, quick: int) -> int:
        """A size that `--events` does not touch: the usual one, or that of a quick run."""
        return quick if self.quick else usual


def parse(
    arguments: Sequence[str] | None, measurements: Sequence[str], competitors: Sequence[str]
) -> Options:
    """Read the command line; ends the process with a message where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the worker beside what one would write otherwise, in one run on this machine.",
        epilog="Exit code: 0 all texts were right, 1 some were not, 2 the bench itself could not run. "
        "Never is it about time.",
    )
    add = parser.add_argument
    listed = ",".join
    add(
        "--only",
        type=_some_of(measurements),
        default=tuple(measurements),
        metavar="NAME,…",
        help=f"only these measurements: {listed(measurements)}",
    )
    add(
        "--competitors",
        type=_some_of(competitors),
        default=tuple(competitors),
        metavar="NAME,…",
        help=f"only these competitors: {listed(competitors)}",
    )
    add("--rounds", type=_positive, help=f"rounds, in each of which everyone has a turn (default {_ROUNDS})")
    add("--events", type=_positive, help=f"events a run of a fast competitor (default {_EVENTS:,})")
    add("--output", type=Path, default=_RESULTS, metavar="DIR", help="where the results go (bench/results)")
    add("--redis", metavar="URL", help="a server that is there; default: one of its own, in memory")
    add("--seed", default="bench", help="what is generated")
    add("--quick", action="store_true", help="everything in small: does it work, are the texts right?")
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
            raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}: {listed}")
        return tuple(name for name in known if name in given)

    return names


def _positive(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise argparse.ArgumentTypeError("it has to be at least 1")
    return number
