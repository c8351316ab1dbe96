"""Test cancellation when a task swallows it, and time limits for steps."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from service.cancelling import cancel, done_within, result_within
from tests.waiting import wait_until


class Stubborn:
    """A step that never ends and swallows its first `losses` cancellations, as redis-py can."""

    def __init__(self, losses: int) -> None:
        self._left = losses
        self.begun = False

    async def run(self) -> None:
        """Wait until cancelled `losses` + 1 times."""
        self.begun = True
        while self._left:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
            self._left -= 1
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("losses", [0, 1, 2])
async def test_tasks_end_although_cancellations_are_lost(losses: int) -> None:
    """Repeat a lost cancellation. Otherwise shutdown would wait for a server that hangs."""
    steps = [Stubborn(0), Stubborn(losses)]
    tasks = [asyncio.create_task(step.run()) for step in steps]
    await wait_until(lambda: all(step.begun for step in steps), message="the steps have begun")
    await asyncio.wait_for(cancel(*tasks, again_after=0.001), 10)
    assert all(task.cancelled() for task in tasks)


async def test_ended_tasks_are_accepted() -> None:
    """Accept tasks that have ended or failed before they are cancelled, and calls without tasks."""

    async def fail() -> None:
        raise KeyError

    failed = asyncio.create_task(fail())
    await asyncio.wait({failed})
    await cancel(failed)
    await cancel()
    assert isinstance(failed.exception(), KeyError)


@pytest.mark.parametrize("losses", [0, 1])
async def test_a_step_is_given_up_in_time(losses: int) -> None:
    """Cancel a timed-out step until it ends. `asyncio.timeout` cancels once, which redis-py can swallow."""
    assert not await asyncio.wait_for(done_within(0.001, Stubborn(losses).run()), 10)


async def test_a_step_that_is_done_or_fails() -> None:
    """Return True for a step that ends in time, and raise the step's own error."""

    async def fail() -> None:
        raise KeyError

    assert await done_within(10, asyncio.sleep(0))
    with pytest.raises(KeyError):
        await done_within(10, fail())


async def test_the_result_of_a_step_is_returned_in_time() -> None:
    """Return the result of a step that ends in time, None for another one, and raise the step's own error."""

    async def fail() -> int:
        raise KeyError

    assert await result_within(10, asyncio.sleep(0, 7)) == 7
    assert await result_within(0.001, asyncio.sleep(10, 7)) is None
    with pytest.raises(KeyError):
        await result_within(10, fail())


async def test_a_step_ends_with_its_waiter() -> None:
    """Cancel the step when its waiter is cancelled. Otherwise the step would run on in the background."""
    step = Stubborn(1)
    waiting = asyncio.create_task(done_within(60, step.run()))
    await wait_until(lambda: step.begun, message="the step has begun")
    await cancel(waiting, again_after=10)
    assert waiting.cancelled()
