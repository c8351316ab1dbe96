"""Call the archive's database, which blocks, from an event loop: in one thread, one call after the other."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class DatabaseThread:
    """A thread for calls that may hang. It is a daemon: a server that hangs does not keep the process."""

    def __init__(self) -> None:
        self._busy_since: float | None = None
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="archive database", daemon=True).start()

    async def call(self, step: Callable[[], T]) -> T:
        """Run a step in the thread; return its result, or raise its error.

        A caller that is cancelled does not wait for the end of a step that has begun.
        """
        future: Future[T] = Future()
        self._calls.put((step, future))
        return await asyncio.wrap_future(future)

    @property
    def busy_seconds(self) -> float:
        """Seconds since the call under way began; 0 without one."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """Let the thread end after the calls that were made."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            step, future = call
            if not future.set_running_or_notify_cancel():
                continue
            self._busy_since = time.monotonic()
            try:
                result = step()
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                self._busy_since = None
                future.set_exception(error)
            else:
                self._busy_since = None
                future.set_result(result)
