"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mutation import report
from mutation.checkout import ROOT, CheckoutError
from mutation.equivalent import Equivalents
from mutation.sabotage import SabotageError, read_sabotages
from mutation.sample import SCOPE, choose
from mutation.suite import SuiteError
from mutation.trial import Trial, trial_of, try_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mutation.trial import Result

UNNOTICED, NOT_RUN, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit code."""
    options = _parser().parse_args(arguments)
    console = report.console_for_results()
    try:
        is_well: bool = options.run(console, options)
    except (CheckoutError, FileNotFoundError, SabotageError, SuiteError) as error:
        sys.stderr.write(f"mutation: {error}\n")
        return NOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0 if is_well else UNNOTICED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mutation",
        description="Break the code on purpose, and check that the tests notice.",
        epilog="Exit code: 0 the tests notice enough, 1 they do not, 2 the program could not be run.",
    )
    commands = parser.add_subparsers(required=True)
    sabotage = commands.add_parser("sabotage", help="try the fixed list: each must turn `make test` red")
    sabotage.add_argument("names", nargs="*", metavar="NAME", help="try only these")
    sabotage.set_defaults(run=_sabotage)
    sample = commands.add_parser("sample", help="try mutants that are chosen at random")
    sample.add_argument(
        "--seed", default=None, help="seed of the choice (default: a new one, which is printed)"
    )
    sample.add_argument(
        "--count", type=int, default=100, help="maximum number of each language (default 100)"
    )
    sample.add_argument("--path", action="append", help="files or folders to change (default: all code)")
    sample.add_argument(
        "--only", action="append", default=[], metavar="TESTS", help="run only these tests, not `make test`"
    )
    sample.add_argument(
        "--quick", action="store_true", help="run only the nearest tests of each, without `make test`"
    )
    sample.add_argument("--list", action="store_true", help="show the mutants without running tests")
    sample.set_defaults(run=_sample)
    for command in (sabotage, sample):
        command.add_argument(
            "--jobs", type=int, default=1, help="number of copies to run in parallel (default 1)"
        )
        command.add_argument("--json", type=Path, default=None, help="write the results to this file")
    return parser


def _run(trials: Sequence[Trial], console: Console, options: argparse.Namespace) -> list[Result]:
    return asyncio.run(try_all(trials, options.jobs, report.Progress(console, len(trials))))


def _sabotage(console: Console, options: argparse.Namespace) -> bool:
    sabotages = [each for each in read_sabotages() if not options.names or each.name in options.names]
    unknown = set(options.names) - {sabotage.name for sabotage in sabotages}
    if unknown:
        raise SabotageError(f"unknown sabotage: {', '.join(sorted(unknown))}")
    trials = [Trial(sabotage.change(ROOT), sabotage.tests) for sabotage in sabotages]
    console.print(f"{len(trials)} sabotages", highlight=False)
    results = _run(trials, console, options)
    if options.json is not None:
        report.write(options.json, results)
    return report.show_sabotages(console, sabotages, results)


def _sample(console: Console, options: argparse.Namespace) -> bool:
    seed: str = options.seed or secrets.token_hex(4)
    mutants = choose(ROOT, options.path or SCOPE, seed, options.count, Equivalents.read())
    console.print(f"{len(mutants)} mutants, seed {seed}", highlight=False)
    if options.list:
        for mutant in mutants:
            source = (ROOT / mutant.file).read_text("utf-8")
            console.print(
                f"{mutant.place(source)}  {mutant.rule}\n{mutant.diff(source)}", highlight=False, markup=False
            )
        return True
    trials = [trial_of(mutant, options.only, quick=options.quick) for mutant in mutants]
    results = _run(trials, console, options)
    if options.json is not None:
        report.write(options.json, results, seed=seed, count=options.count)
    return report.show_sample(console, results, seed)
