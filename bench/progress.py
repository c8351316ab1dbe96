"""Progress output: on a terminal a live line below finished results, else plain lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.status import Status

if TYPE_CHECKING:
    from types import TracebackType


class Progress:
    """The progress display, active while the `with` block lasts."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._began = time.monotonic()
        self._status = Status("", console=self.console) if self.console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def at(self, what: str) -> None:
        """Show the current step, if the output is a terminal."""
        if self._status is not None:
            self._status.update(f"{self._clock()}  {what}")

    def say(self, what: str) -> None:
        """Print a finished result."""
        self.console.print(f"{self._clock()}  {what}", highlight=False, markup=False, soft_wrap=True)

    def _clock(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        return f"{minutes:3d}:{seconds:02d}"
