"""The forwarder's end of the pipe: a bounded queue, and a socket to the copier.

Nothing here waits. A piece that does not fit is dropped and counted, and its copy ends: what follows a gap
cannot be translated. The pieces of 5 ms are sent together, since each system call, and each wake-up of the
copier, costs as much as forwarding a piece.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from tap.copy_frames import BEGIN, END, HEAD, MAX_NUMBER, PIECE

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from deltaloom.dialects import EndReason
    from tap.copy_frames import CopyBeginning

LINGER: Final = 0.005
"""Seconds for which a piece waits for others."""

SLICE_BYTES: Final = 64 * 1024
"""Bytes after which a send takes no further piece, so that it holds the loop only for a moment."""


class CopyPipe:
    """The queue and its socket. While there is no socket, everything is dropped.

    Args:
        limit: maximum bytes that wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._queue: deque[tuple[bytes, bytes]] = deque()
        """Heads and payloads that wait."""
        self._rest = memoryview(b"")
        """Bytes of a send that the socket did not take at once."""
        self._frames: list[tuple[bytes, bytes]] = []
        """Heads and payloads of the slice that is being sent."""
        self._slice_bytes = 0
        self._taken_of_slice = 0
        """Bytes of bodies in this slice that the socket took."""
        self._is_due = False
        """True while a send is scheduled, or waits for the socket."""
        self._is_blocked = False
        """True while the socket takes no more, and the loop watches it."""
        self._next_number = 0
        self.generation = 0
        """Number of the current socket; copies that began with an earlier one are lost."""
        self.waiting_bytes = 0
        """Bytes of frames that wait, with their heads."""
        self.sent_bytes = 0
        """Bytes of bodies that a copier's socket took."""
        self.waiting_body_bytes = 0
        """Bytes of bodies that wait."""
        self.dropped_bytes: Counter[str] = Counter()
        """Bytes of bodies that were dropped, by reason."""
        self.dropped_copies: Counter[str] = Counter()
        """Copies that were never begun or that lost their end, by reason."""
        self.idle = asyncio.Event()
        """Set while nothing waits."""
        self.idle.set()
        self.copies = 0
        """Copies that began."""

    @property
    def is_connected(self) -> bool:
        """True while there is a copier."""
        return self._socket is not None

    def connect(self, end: socket.socket) -> None:
        """Send to this non-blocking socket from now on."""
        self._socket = end

    def disconnect(self) -> None:
        """Drop what waits, since the copier is gone; open copies are lost."""
        if self._socket is None:
            return
        self._watch(self._socket, is_blocked=False)
        self._socket = None
        self._is_due = False
        self.generation += 1
        self.dropped_bytes["copier_gone"] += self.waiting_body_bytes
        self.waiting_body_bytes = self.waiting_bytes = 0
        self._queue.clear()
        self._rest = memoryview(b"")
        self._frames = []
        self.idle.set()

    def begin(self, beginning: CopyBeginning) -> CopiedBody:
        """Begin a copy."""
        payload = json.dumps(beginning).encode()
        self._next_number = self._next_number % MAX_NUMBER + 1
        body = CopiedBody(self, self._next_number)
        if self.put(body.number, BEGIN, payload):
            self.copies += 1
        else:
            body.is_lost = True
            self.dropped_copies[self.drop_reason] += 1
        return body

    @property
    def drop_reason(self) -> str:
        """The reason to count for what is dropped now."""
        return "buffer_full" if self.is_connected else "copier_gone"

    def put(self, number: int, kind: int, payload: bytes) -> bool:
        """Append a frame; return False if it is dropped. An end is kept even if the queue is full."""
        size = HEAD.size + len(payload)
        if self._socket is None or (kind != END and self.waiting_bytes + size > self._limit):
            return False
        self._queue.append((HEAD.pack(number, kind, len(payload)), payload))
        self.waiting_bytes += size
        if kind == PIECE:
            self.waiting_body_bytes += len(payload)
        if not self._is_due:
            self._is_due = True
            self.idle.clear()
            self._loop.call_later(LINGER, self._send_due)
        return True

    def _send_due(self) -> None:
        if self._is_due and not self._rest:
            self._send()

    def _send(self) -> None:
        """Send a slice, and schedule the next one."""
        end = self._socket
        if end is None:
            return
        if not self._rest:
            self._rest = self._slice()
        try:
            sent = end.send(self._rest)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.disconnect()
            return
        self._count(sent)
        self._watch(end, is_blocked=bool(self._rest))
        if self._rest:
            return
        if self._queue:
            self._loop.call_soon(self._send_due)
        else:
            self._is_due = False
            self.idle.set()

    def _watch(self, end: socket.socket, *, is_blocked: bool) -> None:
        """Begin or end to watch the socket: the loop calls `_send` once the socket takes more."""
        if is_blocked and not self._is_blocked:
            self._loop.add_writer(end.fileno(), self._send)
        elif self._is_blocked and not is_blocked:
            self._loop.remove_writer(end.fileno())
        self._is_blocked = is_blocked

    def _slice(self) -> memoryview:
        """Return the next frames as bytes."""
        frames: list[tuple[bytes, bytes]] = []
        size, queue = 0, self._queue
        while queue and size < SLICE_BYTES:
            frame = queue.popleft()
            frames.append(frame)
            size += HEAD.size + len(frame[1])
        self._frames, self._slice_bytes, self._taken_of_slice = frames, size, 0
        return memoryview(b"".join([part for frame in frames for part in frame]))

    def _count(self, sent: int) -> None:
        """Count the bytes of the slice that the socket took, and those of bodies among them."""
        self.waiting_bytes -= sent
        self._rest = self._rest[sent:]
        taken = bytes_of_bodies(self._frames, self._slice_bytes - len(self._rest)) - self._taken_of_slice
        self._taken_of_slice += taken
        self.sent_bytes += taken
        self.waiting_body_bytes -= taken


def bytes_of_bodies(frames: Sequence[tuple[bytes, bytes]], end: int) -> int:
    """Return how many of the first `end` bytes of these frames are bytes of bodies."""
    found = 0
    for head, payload in frames:
        end -= HEAD.size
        if end <= 0:
            break
        if head[4] == PIECE:
            found += min(end, len(payload))
        end -= len(payload)
    return found


class CopiedBody:
    """The copy of one body.

    Args:
        pipe: where it goes.
        number: its number there.
    """

    __slots__ = ("_generation", "_is_over", "_pipe", "is_lost", "number")

    def __init__(self, pipe: CopyPipe, number: int) -> None:
        self._pipe = pipe
        self._generation = pipe.generation
        self._is_over = False
        self.number = number
        self.is_lost = False
        """True once a piece was dropped, or the copier that had the earlier pieces is gone."""

    def piece(self, data: bytes) -> None:
        """Copy a piece that the receiver of the body already has."""
        pipe = self._pipe
        if not self.is_lost and self._generation == pipe.generation and pipe.put(self.number, PIECE, data):
            return
        self._lose(len(data))

    def end(self, reason: EndReason) -> None:
        """End the copy, once."""
        if self._is_over:
            return
        self._is_over = True
        if self.is_lost:
            return
        if self._generation != self._pipe.generation:
            self._lose(0)
        else:
            self._pipe.put(self.number, END, reason.encode())

    def _lose(self, size: int) -> None:
        """Count bytes that are dropped; at the first ones, end the copy."""
        pipe = self._pipe
        is_gone = self._generation != pipe.generation
        reason = "copier_gone" if is_gone else pipe.drop_reason
        pipe.dropped_bytes[reason] += size
        if not self.is_lost:
            self.is_lost = True
            pipe.dropped_copies[reason] += 1
            if not is_gone:
                pipe.put(self.number, END, b"interrupted")
