"""Tries changes one by one: does a test notice?"""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mutation.checkout import ROOT, Checkout
from mutation.nearest import nearest_tests
from mutation.suite import SuiteError, make_test, run_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mutation.change import Change
    from mutation.suite import Outcome

NEAREST_LIMIT: Final = 600.0
"""Seconds for the tests that are run first."""

ALL_LIMIT: Final = 1800.0
"""Seconds for `make test`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A change to try, and the tests that are run first."""

    change: Change
    tests: Sequence[str]
    then_all: bool = True
    """Whether `make test` decides if they pass."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a change."""

    change: Change
    source: str
    """The file before."""
    outcome: Outcome
    by_first: bool
    """Whether one of the tests that were run first failed."""

    @property
    def killed(self) -> bool:
        """Whether a test failed, or none came to an end."""
        return self.outcome.red


def trial_of(change: Change, only: Sequence[str] = ()) -> Trial:
    """Return the trial of a mutant: the nearest tests and then all; or only these."""
    return Trial(change, only or nearest_tests(ROOT, change.file), then_all=not only)


def try_one(checkout: Checkout, trial: Trial) -> Result:
    """Try a change."""
    change = trial.change
    source = (checkout.folder / change.file).read_text("utf-8")
    with checkout.changed(change):
        if trial.tests:
            outcome = run_tests(checkout, trial.tests, NEAREST_LIMIT)
            if outcome.red or not trial.then_all:
                return Result(change, source, outcome, by_first=True)
        return Result(change, source, make_test(checkout, ALL_LIMIT), by_first=False)


def try_all(trials: Sequence[Trial], jobs: int, done: Callable[[Result], None]) -> list[Result]:
    """Try changes, so many at once, each in a copy; returns the results in the order of the trials.

    Args:
        trials: what to try.
        jobs: copies at work at once.
        done: is told each result as it comes.

    Raises:
        SuiteError: tests fail without any change, or cannot be run.
    """
    with _checkouts(jobs) as checkouts, ThreadPoolExecutor(jobs) as pool:
        first = checkouts.get()
        _check_unchanged(first, trials)
        checkouts.put(first)

        def run(trial: Trial) -> Result:
            checkout = checkouts.get()
            try:
                result = try_one(checkout, trial)
            finally:
                checkouts.put(checkout)
            done(result)
            return result

        try:
            return list(pool.map(run, trials))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _checkouts(count: int) -> Iterator[queue.SimpleQueue[Checkout]]:
    with ExitStack() as stack:
        checkouts: queue.SimpleQueue[Checkout] = queue.SimpleQueue()
        for _ in range(count):
            checkouts.put(stack.enter_context(Checkout()))
        yield checkouts


def _check_unchanged(checkout: Checkout, trials: Sequence[Trial]) -> None:
    """Run the tests without any change: those that fail would seem to notice everything."""
    first = sorted({test for trial in trials for test in trial.tests})
    outcome = run_tests(checkout, first, ALL_LIMIT) if first else None
    if outcome is None or (not outcome.red and any(trial.then_all for trial in trials)):
        outcome = make_test(checkout, ALL_LIMIT)
    if outcome.red:
        raise SuiteError(f"without any change the tests fail: {outcome.test or 'they do not come to an end'}")
