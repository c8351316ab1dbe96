"""Periodic tasks of a worker, which run next to its reading."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service import logs
from service.cancelling import cancel
from service.ports.storage import SetupError, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class PeriodicTask:
    """A step that runs periodically. A failed run is logged; while Redis is unavailable, runs are skipped.

    Args:
        name: name of the task in log lines.
        interval: seconds between two runs.
        step: the step to run.
        stream: the input stream of the task, which is added to all log lines of the step.
    """

    def __init__(self, name: str, interval: float, step: Callable[[], Awaitable[None]], stream: str) -> None:
        self._name = name
        self._interval = interval
        self._step = step
        self._stream = stream
        self._task: asyncio.Task[None] | None = None
        self._wrong: str | None = None
        """The logged error that needs an operator; None after a successful run."""

    def start(self) -> None:
        """Start the task; the first run begins at once."""
        self._task = asyncio.create_task(self._run(), name=f"{self._name} {self._stream}")

    async def stop(self) -> None:
        """Cancel the task, even within a run, and wait for its end."""
        if self._task is not None:
            await cancel(self._task)

    async def _run(self) -> None:
        with logs.bound(stream=self._stream):
            while True:
                try:
                    await self._step()
                    self._wrong = None
                except SetupError as error:
                    self._log_once(error)
                except StorageUnavailableError as error:
                    logs.logger().debug(
                        "periodic task skipped, redis unavailable", task=self._name, error=str(error)
                    )
                except Exception:  # noqa: BLE001 - logged; the next run does what this one has left
                    logs.logger().exception("periodic task failed", task=self._name)
                await asyncio.sleep(self._interval)

    def _log_once(self, error: SetupError) -> None:
        """Log an error that needs an operator, once."""
        if self._wrong != str(error):
            self._wrong = str(error)
            logs.logger().error(
                "redis misconfigured, periodic task skipped", task=self._name, error=str(error)
            )
