"""Test what a retrier tells about the steps that wait."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from service.cancelling import cancel
from service.ports.storage import SetupError, StorageUnavailableError
from service.retrying import SAID_AGAIN_AFTER, RetryUntilAvailable
from service.under_way import Step
from tests.waiting import wait_until


async def test_the_states_that_need_an_operator() -> None:
    """Name the states for which steps wait until an operator acts, and none of them afterwards."""
    retrying, granted = RetryUntilAvailable(), asyncio.Event()

    async def step() -> None:
        if not granted.is_set():
            raise SetupError("NOPERM", "a right is missing")

    waiting = asyncio.create_task(retrying.call(step))
    try:
        await wait_until(lambda: retrying.needs_operator == ["NOPERM"])
        granted.set()
        await waiting
        assert retrying.needs_operator == []
    finally:
        await cancel(waiting)


async def test_a_long_outage_is_logged_again() -> None:
    """Otherwise the log would be silent while nothing is done, and the first line scrolls away."""
    times = iter([0.0, 1.0, SAID_AGAIN_AFTER, SAID_AGAIN_AFTER + 1])
    retrying, failures = RetryUntilAvailable(lambda: next(times)), 3

    async def step() -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StorageUnavailableError("TimeoutError", "no answer")

    with capture_logs() as lines, Step("round", "reclaim"):
        await retrying.call(step)
    assert [line["event"] for line in lines] == [
        "redis unavailable, retrying",
        "redis still unavailable, retrying",
        "redis available again",
    ]
    assert (lines[1]["away_seconds"], lines[1]["step"]) == (SAID_AGAIN_AFTER, "round reclaim")
