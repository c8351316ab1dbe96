"""Honest responses that hostile entries may refer to."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from chaos.generator import Response

_REMEMBERED = 200
_NEWEST = 10


class Victims:
    """The latest honest responses, and those of them that are over.

    An entry may be repeated only if its response is over: then it is late, and has no effect. Before that, a
    repeat of a delta without a number would be a new delta.
    """

    def __init__(self) -> None:
        self._latest: deque[Response] = deque(maxlen=_REMEMBERED)
        self._ended: deque[Response] = deque(maxlen=_REMEMBERED)

    def begins(self, response: Response) -> None:
        """Note that an honest response is about to be stored."""
        self._latest.append(response)

    def is_over(self, response: Response) -> None:
        """Note that a response is stored completely, and that its outputs have come."""
        self._ended.append(response)

    def pick(self, rng: random.Random) -> Response | None:
        """Return one of the latest responses, mostly one in progress."""
        if not self._latest:
            return None
        newest = min(len(self._latest), rng.choice((_NEWEST, _NEWEST, _REMEMBERED)))
        return self._latest[-rng.randint(1, newest)]

    def over(self, rng: random.Random) -> Response | None:
        """Return a response that is over, or None."""
        return rng.choice(self._ended) if self._ended else None
