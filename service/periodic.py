"""Steps that a worker runs periodically, next to its reading."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service import logs
from service.cancelling import cancel
from service.ports.storage import SetupError, StorageUnavailableError
from service.under_way import Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class BackgroundStep:
    """A step that runs beside others. A failed run is logged; while Redis is unavailable, runs are skipped.

    Args:
        name: name of the step in log lines, where it is called a task.
        step: the step to run.
        stream: the input stream of the step, which is added to all its log lines.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[None]], stream: str) -> None:
        self._name = name
        self._step = step
        self._stream = stream
        self._task: asyncio.Task[None] | None = None
        self._wrong: str | None = None
        """The logged error that needs an operator; None after a successful run."""

    def begin(self) -> None:
        """Begin a run in a task, unless the previous run still goes on."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self.run(), name=f"{self._name} {self._stream}")

    async def stop(self) -> None:
        """Cancel the run that was begun, and wait for its end."""
        if self._task is not None:
            await cancel(self._task)

    async def run(self) -> None:
        """Run the step; log its error instead of raising it."""
        with logs.bound(stream=self._stream), Step("round", self._name):
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

    def _log_once(self, error: SetupError) -> None:
        """Log an error that needs an operator, once."""
        if self._wrong != str(error):
            self._wrong = str(error)
            logs.logger().error(
                "redis misconfigured, periodic task skipped", task=self._name, error=str(error)
            )


class PeriodicTask:
    """A task that runs a step periodically.

    Args:
        name: name of the task in log lines.
        interval: seconds between two runs.
        step: the step to run.
        stream: the input stream of the task, which is added to all log lines of the step.
    """

    def __init__(self, name: str, interval: float, step: Callable[[], Awaitable[None]], stream: str) -> None:
        self._interval = interval
        self._step = BackgroundStep(name, step, stream)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task; the first run begins at once."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Cancel the task, even within a run, and wait for its end."""
        if self._task is not None:
            await cancel(self._task)

    async def _run(self) -> None:
        while True:
            await self._step.run()
            await asyncio.sleep(self._interval)
