"""What a worker does again and again beside reading: one task for each thing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service import logs
from service.cancelling import cancelled
from service.ports.storage import SetUpWronglyError, StorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Round:
    """Something done again and again, whatever goes wrong; while Redis is away, it is put off.

    Args:
        name: for the log.
        interval: seconds between two of them.
        step: what is done.
        stream: of which input; every line that the step logs says so.
    """

    def __init__(self, name: str, interval: float, step: Callable[[], Awaitable[None]], stream: str) -> None:
        self._name = name
        self._interval = interval
        self._step = step
        self._stream = stream
        self._task: asyncio.Task[None] | None = None
        self._wrong: str | None = None
        """How the server is set up wrongly for it, once that was logged."""

    def start(self) -> None:
        """Begin at once."""
        self._task = asyncio.create_task(self._run(), name=f"{self._name} {self._stream}")

    async def stop(self) -> None:
        """Come back when it has ended, within what it does."""
        if self._task is not None:
            await cancelled(self._task)

    async def _run(self) -> None:
        with logs.bound(stream=self._stream):
            while True:
                try:
                    await self._step()
                    self._wrong = None
                except SetUpWronglyError as error:
                    self._tell(error)
                except StorageUnavailableError as error:
                    logs.logger().debug("put off", round=self._name, error=str(error))
                except Exception:  # noqa: BLE001 - logged; what one round leaves, the next one does
                    logs.logger().exception("round failed", round=self._name)
                await asyncio.sleep(self._interval)

    def _tell(self, error: SetUpWronglyError) -> None:
        """Log what somebody has to mend, once."""
        if self._wrong != str(error):
            self._wrong = str(error)
            logs.logger().error("redis is set up wrongly, round put off", round=self._name, error=str(error))
