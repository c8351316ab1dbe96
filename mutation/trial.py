"""Trials of changes, to check whether a test notices them."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mutation.checkout import ROOT, Checkout
from mutation.nearest import nearest_tests
from mutation.suite import SuiteError, make_test, run_tests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mutation.change import Change
    from mutation.suite import Outcome

FIRST_LIMIT: Final = 600.0
"""Seconds for the tests that are run first."""

ALL_LIMIT: Final = 1800.0
"""Seconds for `make test`."""

_PROCESSES: Final = 4
"""Number of processes for many tests, most of which wait."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A change to try, with the tests to run first."""

    change: Change
    tests: tuple[str, ...]
    then_all: bool = True
    """True if `make test` is run when those tests pass."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a trial."""

    change: Change
    source: str
    """Source of the file before the change."""
    outcome: Outcome
    by_first: bool
    """True if the outcome is that of the tests run first, not of `make test`."""

    @property
    def killed(self) -> bool:
        """Return whether a test failed, or the tests did not end in time."""
        return self.outcome.red


def trial_of(change: Change, only: Sequence[str] = (), *, quick: bool = False) -> Trial:
    """Return the trial of a mutant: with the tests in `only`, or with the nearest and, unless quick, all."""
    tests = tuple(only or nearest_tests(ROOT, change.file))
    return Trial(change, tests, then_all=not (only or quick))


async def try_all(trials: Sequence[Trial], jobs: int, done: Callable[[Result], None]) -> list[Result]:
    """Try changes, first with the tests of each trial, then with `make test` if those pass.

    Args:
        trials: trials to run.
        jobs: number of copies to run in parallel.
        done: called with each final result.

    Returns:
        The results in the order of the trials.

    Raises:
        SuiteError: a test that notices a change fails without it too, or tests cannot be run.
    """
    results: dict[Trial, Result] = {}

    def note(trial: Trial, result: Result) -> None:
        results[trial] = result
        if result.killed or not (trial.then_all and result.by_first):
            done(result)

    with ExitStack() as stack:
        checkouts = [stack.enter_context(Checkout()) for _ in range(jobs)]
        await _try_each(checkouts, [trial for trial in trials if trial.tests], _run_first, note)
        killed = {trial for trial, result in results.items() if result.killed}
        left = [trial for trial in trials if trial.then_all and trial not in killed]
        await _try_each(checkouts, left, _run_all, note)
    return [results[trial] for trial in trials]


async def _run_first(checkout: Checkout, trial: Trial) -> Outcome:
    """Run the nearest tests, then the next two, then the others, as collecting takes the most time."""
    outcome = await run_tests(checkout, trial.tests[:1], FIRST_LIMIT)
    for tests, processes in ((trial.tests[1:3], 0), (trial.tests[3:], _PROCESSES)):
        if tests and not outcome.red:
            following = await run_tests(checkout, tests, FIRST_LIMIT, processes)
            outcome = replace(following, seconds=outcome.seconds + following.seconds)
    return outcome


async def _run_all(checkout: Checkout, _trial: Trial) -> Outcome:
    return await make_test(checkout, ALL_LIMIT)


async def _try_each(
    checkouts: Sequence[Checkout],
    trials: Sequence[Trial],
    run: Callable[[Checkout, Trial], Awaitable[Outcome]],
    note: Callable[[Trial, Result], None],
) -> None:
    """Run tests for each trial, in parallel in all copies."""
    left, known = iter(trials), set[str]()

    async def work(checkout: Checkout) -> None:
        for trial in left:
            change = trial.change
            source = (checkout.folder / change.file).read_text("utf-8")
            with checkout.changed(change):
                outcome = await run(checkout, trial)
            if outcome.test is not None and outcome.test not in known:
                await check_unchanged(checkout, outcome.test)
                known.add(outcome.test)
            note(trial, Result(change, source, outcome, by_first=run is _run_first))

    tasks = [asyncio.create_task(work(checkout)) for checkout in checkouts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def check_unchanged(checkout: Checkout, test: str) -> None:
    """Check that a test passes without a change. Otherwise it would seem to notice all changes.

    Raises:
        SuiteError: the test fails.
    """
    name, _, _ = test.partition("[")
    if (await run_tests(checkout, [name], FIRST_LIMIT)).red:
        raise SuiteError(f"{test} fails without any change")
