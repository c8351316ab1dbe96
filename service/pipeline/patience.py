"""Waiting for Redis: while it is away nothing is acknowledged and nothing is a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from service import logs
from service.ports import StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def persistently(step: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Take a step, again and again while storage is unavailable, with back-off (up to 5 s) and jitter.

    Says so in one line when it begins to wait, and in one when it goes on.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(StorageUnavailableError),
        wait=wait_exponential_jitter(multiplier=0.1, max=5, jitter=0.5),
        before_sleep=_say_once,
        reraise=True,
    )
    result: T = await retrying(step, *args)
    if retrying.statistics["attempt_number"] > 1:
        logs.logger().info("redis is back", attempts=retrying.statistics["attempt_number"])
    return result


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        logs.logger().warning("redis is away, waiting for it", error=str(state.outcome.exception()))
