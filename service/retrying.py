"""Retry steps until Redis is available. Meanwhile nothing is acknowledged or becomes a dead letter."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from service import logs, under_way
from service.ports.storage import SetupError, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MAX_PAUSE = 5
"""Maximum seconds between two attempts, plus at most half a second of jitter."""

SAID_AGAIN_AFTER = 300.0
"""Seconds after which the log says again that Redis is still unavailable."""


class RetryUntilAvailable:
    """Retries steps until Redis is available.

    All partitions of a worker share one instance, except in a cluster, where each has its own. In a relay,
    each destination has its own.

    It logs one line when Redis becomes unavailable, one when the cause changes, one every five minutes, and
    one when Redis is back. If Redis is misconfigured for some steps only, the others continue, and each such
    error is logged once.

    Args:
        clock: monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_state: str | None = None
        self._logged_at = 0.0
        """Time of the latest line about an unavailable Redis."""
        self._away_since: float | None = None
        self._away_seconds = 0.0
        self._wrong: dict[str, SetupError] = {}
        """The logged errors that need an operator, by message."""

    @property
    def waits_for(self) -> str | None:
        """The state of Redis for which steps wait, such as `ConnectionError`; None if it is available."""
        return self._logged_state or ("misconfigured" if self._wrong else None)

    @property
    def needs_operator(self) -> list[str]:
        """The states for which a step waits until an operator acts, such as `NOPERM`; empty if none does."""
        return sorted({error.state for error in self._wrong.values()})

    @property
    def is_away(self) -> bool:
        """True if a step has failed because of Redis, and none has succeeded since."""
        return self._away_since is not None

    @property
    def away_seconds(self) -> float:
        """Seconds for which Redis was unavailable in all, the present time included."""
        now = 0.0 if self._away_since is None else self._clock() - self._away_since
        return self._away_seconds + now

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
        under_way.unavailable()
        message, now = str(error), self._clock()
        if self._away_since is None:
            self._away_since = now
        if isinstance(error, SetupError):
            wrong[message] = error.state
            if message not in self._wrong:
                self._wrong[message] = error
                logs.logger().error(
                    "redis misconfigured, waiting for an operator", state=error.state, error=message
                )
        elif self._logged_state != error.state:
            self._logged_state, self._logged_at = error.state, now
            logs.logger().warning(
                "redis unavailable, retrying", state=error.state, error=message, step=under_way.current()
            )
        elif now - self._logged_at >= SAID_AGAIN_AFTER:
            self._logged_at = now
            logs.logger().warning(
                "redis still unavailable, retrying",
                state=error.state,
                error=message,
                step=under_way.current(),
                away_seconds=round(now - self._away_since),
            )

    def _log_available(self, wrong: dict[str, str]) -> None:
        if self._away_since is not None:
            self._away_seconds, self._away_since = self.away_seconds, None
        for message in wrong.keys() & self._wrong:
            del self._wrong[message]
            logs.logger().info("redis available again", previous_state=wrong[message])
        if self._logged_state is not None:
            logs.logger().info("redis available again", previous_state=self._logged_state)
            self._logged_state = None
