"""Observing when the outputs come, by the clock of the publisher."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.ground import Ground

_BLOCK_MS = 100
_COUNT = 10_000


@dataclass(slots=True)
class Seen:
    """The outputs of one stream, and the times at which they came."""

    at: list[float] = field(default_factory=list)
    entries: list[dict[bytes, bytes]] = field(default_factory=list)


class Observer:
    """The outputs that were seen, by stream; complete after the block of `watch`."""

    def __init__(self, *streams: str) -> None:
        self.seen = {stream: Seen() for stream in streams}
        self.commands = 0
        """Number of commands that it has sent so far."""
        self._over = threading.Event()

    def stop(self) -> None:
        """Have `look` return after one more read, for the remaining entries."""
        self._over.set()

    def look(self, place: Ground) -> None:
        """Read the streams until it is stopped."""
        # Replies are stored as they come, and parsed after the measurement.
        raw: dict[str, list[tuple[float, list[Any]]]] = {stream: [] for stream in self.seen}
        after = dict.fromkeys(self.seen, b"0-0")
        connection: Any = place.client.connection_pool.get_connection()
        last, reply = False, None
        try:
            while reply or not last:
                last = self._over.is_set()
                self.commands += 1
                connection.send_command(
                    "XREAD", "COUNT", _COUNT, "BLOCK", _BLOCK_MS, "STREAMS", *after, *after.values()
                )
                reply = connection.read_response()
                now = time.monotonic()
                for name, entries in reply.items() if isinstance(reply, dict) else reply or ():
                    raw[name.decode()].append((now, entries))
                    after[name.decode()] = entries[-1][0]
        finally:
            place.client.connection_pool.release(connection)
        for stream, batches in raw.items():
            for at, entries in batches:
                for _, fields in entries:
                    self.seen[stream].at.append(at)
                    self.seen[stream].entries.append(dict(zip(fields[::2], fields[1::2], strict=True)))


@contextmanager
def watch(place: Ground, *streams: str) -> Iterator[Observer]:
    """Observe the outputs of streams in a thread, from now until the end of the block."""
    observer = Observer(*streams)
    thread = threading.Thread(target=observer.look, args=(place,))
    thread.start()
    try:
        yield observer
    finally:
        observer.stop()
        thread.join()
