"""Count what was copied, and the faults that no caller sees."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_FAULTS: Final = 100
"""Maximum places of faults that are counted separately. Faults at further places count as `elsewhere`."""


class _Count:
    """A number that threads, signal handlers and finalizers may increase, without a lock."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def add_one(self) -> None:
        """Increase the number by one: a single step of the interpreter."""
        next(self._numbers)

    @property
    def value(self) -> int:
        """The number, which `itertools.count` shows only in its `repr`."""
        return int(repr(self._numbers)[len("count(") : -1])


class TeeCounters:
    """Counters of this process. In a forked process, they continue from the parent's values."""

    def __init__(self) -> None:
        self._responses = _Count()
        self._ended = _Count()
        self._errors_left_out = _Count()
        self._faults: dict[str, _Count] = {}

    @property
    def responses(self) -> int:
        """Responses whose copy began."""
        return self._responses.value

    @property
    def ended(self) -> int:
        """Responses whose copy ended."""
        return self._ended.value

    @property
    def errors_left_out(self) -> int:
        """HTTP errors that were not copied, because no policy was their reason."""
        return self._errors_left_out.value

    @property
    def faults(self) -> Mapping[str, int]:
        """Faults of the copy, by exception and place, such as `KeyError at chat.py:12`."""
        return {place: count.value for place, count in self._faults.copy().items()}

    def begin_response(self) -> None:
        """Count a response whose copy begins."""
        self._responses.add_one()

    def end_response(self) -> None:
        """Count a response whose copy ends."""
        self._ended.add_one()

    def leave_out_error(self) -> None:
        """Count an HTTP error that is not copied."""
        self._errors_left_out.add_one()

    def fault(self, error: BaseException) -> None:
        """Count a fault. Its message is not kept, since it may quote a text."""
        place = f"{type(error).__name__} at {_place(error.__traceback__)}"
        if place not in self._faults and len(self._faults) >= _FAULTS:
            place = "elsewhere"
        self._faults.setdefault(place, _Count()).add_one()


def _place(traceback: TracebackType | None) -> str:
    """Return file and line of the innermost frame of a traceback."""
    if traceback is None:
        return "?"
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


counters: Final = TeeCounters()
"""The counters of this process."""
