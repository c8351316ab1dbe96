"""Waiting for Redis: while it is away nothing is acknowledged and nothing is a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from service import logs
from service.ports import StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MAX_PAUSE = 5
"""Seconds between two attempts, at most (and half a second of jitter)."""


class Patience:
    """Takes steps that need Redis until they are done. All of a process share one.

    It logs one line when Redis goes away, one when the reason changes, and one when it is back.
    """

    def __init__(self) -> None:
        self._trouble: str | None = None

    async def until_done(self, step: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Take a step, again and again while Redis is away, with back-off and jitter."""
        try:
            result = await step(*args)
        except StorageUnavailableError as error:
            self._away(error)
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(StorageUnavailableError),
                wait=wait_exponential_jitter(multiplier=0.1, max=MAX_PAUSE, jitter=0.5),
                before_sleep=self._still_away,
                reraise=True,
            )
            result = await retrying(step, *args)
        self._back()
        return result

    def _still_away(self, state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        if isinstance(error, StorageUnavailableError):
            self._away(error)

    def _away(self, error: StorageUnavailableError) -> None:
        if self._trouble != error.state:
            self._trouble = error.state
            logs.logger().warning("redis is away, waiting for it", state=error.state, error=str(error))

    def _back(self) -> None:
        if self._trouble is not None:
            logs.logger().info("redis is back", was=self._trouble)
            self._trouble = None
