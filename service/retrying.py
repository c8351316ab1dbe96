"""Retry steps until Redis is available. Meanwhile nothing is acknowledged or becomes a dead letter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from service import logs
from service.ports.storage import SetupError, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MAX_PAUSE = 5
"""Maximum seconds between two attempts, plus at most half a second of jitter."""


class RetryUntilAvailable:
    """Retries steps until Redis is available.

    All parts of a process share one instance; in a cluster, each partition has its own.

    It logs one line when Redis becomes unavailable, one when the cause changes, and one when Redis is back.
    If Redis is misconfigured for some steps only, the others continue, and each such error is logged once.
    """

    def __init__(self) -> None:
        self._logged_state: str | None = None
        self._wrong: set[str] = set()
        """The logged errors that need an operator."""

    async def call(self, step: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a step, and retry it while Redis is unavailable, with back-off and jitter."""
        wrong: dict[str, str] = {}
        try:
            result = await step(*args)
        except StorageUnavailableError as error:
            self._log_unavailable(error, wrong)
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(StorageUnavailableError),
                wait=wait_exponential_jitter(multiplier=0.1, max=MAX_PAUSE, jitter=0.5),
                before_sleep=partial(self._before_retry, wrong),
                reraise=True,
            )
            result = await retrying(step, *args)
        self._log_available(wrong)
        return result

    def _before_retry(self, wrong: dict[str, str], state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        if isinstance(error, StorageUnavailableError):
            self._log_unavailable(error, wrong)

    def _log_unavailable(self, error: StorageUnavailableError, wrong: dict[str, str]) -> None:
        """Log that a step has to wait; add an error that needs an operator to `wrong`, with its state."""
        message = str(error)
        if isinstance(error, SetupError):
            wrong[message] = error.state
            if message not in self._wrong:
                self._wrong.add(message)
                logs.logger().error(
                    "redis misconfigured, waiting for an operator", state=error.state, error=message
                )
        elif self._logged_state != error.state:
            self._logged_state = error.state
            logs.logger().warning("redis unavailable, retrying", state=error.state, error=message)

    def _log_available(self, wrong: dict[str, str]) -> None:
        for message in wrong.keys() & self._wrong:
            self._wrong.remove(message)
            logs.logger().info("redis available again", previous_state=wrong[message])
        if self._logged_state is not None:
            logs.logger().info("redis available again", previous_state=self._logged_state)
            self._logged_state = None
