"""Test which steps count as stuck, with times that the tests give."""

from __future__ import annotations

import asyncio
import time

import pytest

from service import under_way
from service.observability.liveness import LIMITS, STUCK_AFTER, Liveness
from service.ports.storage import StorageUnavailableError
from service.retrying import RetryUntilAvailable
from service.storage.client.availability import unavailable_if_away
from service.under_way import Kind, Step, steps


def liveness(*under_way: Step) -> Liveness:
    """Return the liveness of a process whose loop turned at 1,000 seconds."""
    return Liveness(lambda: under_way, now=1000.0)


def step(kind: Kind, moved_at: float, call_since: float | None = None, *, waits: bool = False) -> Step:
    """Return a step under way."""
    made = Step(kind, "a")
    made.moved_at, made.call_since, made.waits = moved_at, call_since, waits
    return made


@pytest.mark.parametrize("kind", ["batch", "read", "round"])
def test_a_step_is_stuck_after_three_times_its_limit(kind: Kind) -> None:
    """Just before it is not, and the reason says what is stuck, and for how long."""
    limit = STUCK_AFTER * LIMITS[kind]
    assert liveness(step(kind, 1000 - limit)).stuck(1000) == []
    (reason,) = liveness(step(kind, 999 - limit)).stuck(1000)
    assert reason.endswith(f"a has not moved for {limit + 1:.0f} s, allowed are {limit:.0f}")


def test_waiting_for_redis_is_not_being_stuck() -> None:
    """However long Redis is away; but an attempt that never ends is stuck."""
    assert liveness(step("batch", 0, waits=True)).stuck(1000) == []
    assert liveness(step("batch", 0, 999, waits=True)).stuck(1000) == []
    (reason,) = liveness(step("batch", 0, 900, waits=True)).stuck(1000)
    assert reason == "a call of a batch of a has not ended for 100 s, allowed are 60"


def test_waiting_for_too_long_is_told() -> None:
    """A step that waits for longer than three times its limit does no work, whatever the others do."""
    waits, moves = step("read", 960, waits=True), step("read", 0)
    assert liveness(waits, moves).waiting(990) == []
    assert liveness(waits, moves).waiting(1000) == ["a read of a has waited for Redis for 40 s"]


def test_a_loop_that_does_not_turn() -> None:
    """A loop that is late for its turns is stuck until the next one, and the longest lag is kept."""
    found = liveness()
    assert found.stuck(1015) == []
    assert found.stuck(1016) == ["the event loop has not turned for 16 s, allowed are 15"]
    assert found.turn(1016) == 15
    assert (found.stuck(1016), found.worst_lag) == ([], 15.0)


async def test_calls_move_the_step_of_their_task() -> None:
    """A call that succeeds moves its step, one that fails because Redis is away lets it wait."""
    attempts = 0
    seen: list[tuple[bool, bool]] = []

    async def away_once() -> None:
        nonlocal attempts
        attempts += 1
        (batch,) = steps()
        with unavailable_if_away():
            seen.append((batch.waits, batch.call_since is not None))
            if attempts == 1:
                raise ConnectionError

    with Step("batch", "a") as batch:
        began = batch.moved_at
        await RetryUntilAvailable().call(away_once)
        assert seen == [(False, False), (True, True)]
        assert (batch.waits, batch.call_since) == (False, None)
        assert batch.moved_at > began
    assert not steps()
    assert attempts == 2


async def test_steps_of_tasks_are_apart() -> None:
    """The call of one batch does not move another one."""
    moved, ends = asyncio.Event(), asyncio.Event()

    async def waits() -> float:
        with Step("batch", "a") as batch:
            moved.set()
            await ends.wait()
            return batch.moved_at - began

    began = time.monotonic()
    task = asyncio.create_task(waits())
    await moved.wait()
    later = time.monotonic()
    with Step("batch", "b"):
        under_way.moved()
    ends.set()
    assert began + await task <= later


async def test_steps_end_with_errors() -> None:
    """A step that fails is not under way any more."""
    with pytest.raises(StorageUnavailableError), Step("round", "sweep"):
        raise StorageUnavailableError("ConnectionError", "away")
    assert not steps()
