"""Frames of the pipe between the forwarder and the copier.

A frame is a head (number of the copy, kind, length in bytes) and a payload. The payload of `BEGIN` is JSON:
the arguments of the translator, and the context. The payload of `PIECE` is bytes of the body as they came,
that of `END` the reason why the body ended. The first frame is `SETTINGS`: a secret that was read from a file
does not appear in the copier's environment.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD: Final = struct.Struct("<IBI")
"""Number of the copy, kind, and length of the payload in bytes."""

SETTINGS: Final = 0
BEGIN: Final = 1
PIECE: Final = 2
END: Final = 3

MAX_NUMBER: Final = 2**32 - 1
"""Maximum number of a copy; the next one is 1 again."""


class CopyBeginning(TypedDict):
    """The payload of `BEGIN`."""

    translation: dict[str, Any]
    """Arguments of the translator."""
    context: dict[str, str]
    """Context of the response."""


class CopierSettings(TypedDict):
    """The payload of `SETTINGS`."""

    redis_url: str
    redis_mode: Any
    prefix: str
    partitions: int
    budget: int
    """Maximum bytes of events that wait for Redis."""
    max_event_bytes: int


class CopyFrame(NamedTuple):
    """A frame that was read."""

    number: int
    """Number of the copy within this pipe."""
    kind: int
    payload: bytes


def beginning_of(payload: bytes) -> CopyBeginning:
    """Return the payload of a `BEGIN`."""
    beginning: CopyBeginning = json.loads(payload)
    return beginning


class FrameReader:
    """Cuts the bytes of a pipe into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[CopyFrame]:
        """Yield the frames that these bytes complete."""
        held = self._held
        held += data
        start = 0
        with memoryview(held) as view:
            while start + HEAD.size <= len(view):
                number, kind, length = HEAD.unpack_from(view, start)
                end = start + HEAD.size + length
                if end > len(view):
                    break
                yield CopyFrame(number, kind, bytes(view[start + HEAD.size : end]))
                start = end
        del held[:start]
