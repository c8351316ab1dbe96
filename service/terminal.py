"""The terminal in which a process was started: a program without one goes on after SIGHUP."""

from __future__ import annotations

import os
from typing import Final

_STANDARD_STREAMS: Final = (0, 1, 2)


class Terminal:
    """The terminal of the standard streams when this object was made, if any."""

    def __init__(self) -> None:
        self._was_there = _is_there()

    @property
    def is_closed(self) -> bool:
        """True if there was a terminal and it was closed."""
        return self._was_there and not _is_there()


def _is_there() -> bool:
    return any(os.isatty(stream) for stream in _STANDARD_STREAMS)
