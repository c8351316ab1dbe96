"""Waiting for Redis: while it is away nothing is acknowledged and nothing is a dead letter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from service import logs
from service.ports.storage import SetUpWronglyError, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MAX_PAUSE = 5
"""Seconds between two attempts, at most (and half a second of jitter)."""


class Patience:
    """Takes steps that need Redis until they are done. All of a process share one.

    It logs one line when Redis goes away, one when the reason changes, and one when it is back. If Redis is
    set up wrongly for some steps only, others go on beside them, and each such error is logged once.
    """

    def __init__(self) -> None:
        self._trouble: str | None = None
        self._wrong: set[str] = set()
        """The errors that were logged because somebody has to mend something."""

    async def until_done(self, step: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Take a step, again and again while Redis is away, with back-off and jitter."""
        wrong: dict[str, str] = {}
        try:
            result = await step(*args)
        except StorageUnavailableError as error:
            self._away(error, wrong)
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(StorageUnavailableError),
                wait=wait_exponential_jitter(multiplier=0.1, max=MAX_PAUSE, jitter=0.5),
                before_sleep=partial(self._still_away, wrong),
                reraise=True,
            )
            result = await retrying(step, *args)
        self._back(wrong)
        return result

    def _still_away(self, wrong: dict[str, str], state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        if isinstance(error, StorageUnavailableError):
            self._away(error, wrong)

    def _away(self, error: StorageUnavailableError, wrong: dict[str, str]) -> None:
        """Log that a step has to wait; `wrong` collects what somebody has to mend for it, and its state."""
        said = str(error)
        if isinstance(error, SetUpWronglyError):
            wrong[said] = error.state
            if said not in self._wrong:
                self._wrong.add(said)
                logs.logger().error(
                    "redis is set up wrongly, waiting for somebody", state=error.state, error=said
                )
        elif self._trouble != error.state:
            self._trouble = error.state
            logs.logger().warning("redis is away, waiting for it", state=error.state, error=said)

    def _back(self, wrong: dict[str, str]) -> None:
        for said in wrong.keys() & self._wrong:
            self._wrong.remove(said)
            logs.logger().info("redis is back", was=wrong[said])
        if self._trouble is not None:
            logs.logger().info("redis is back", was=self._trouble)
            self._trouble = None
