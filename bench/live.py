"""Publishing at a steady rate, and observing when the outputs come."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.ground import Ground

_TICK_SECONDS = 0.001
_BLOCK_MS = 100
_COUNT = 10_000


def publish(place: Ground, commands: Sequence[bytes], rate: float) -> list[float]:
    """Send commands at a steady rate without waiting for replies; return the time at which each was sent.

    Commands that are due are sent together, every millisecond. The schedule waits for no competitor, so that
    a slow one cannot catch up.
    """
    connection: Any = place.client.connection_pool.get_connection()
    times: list[float] = []
    try:
        connection.send_command("CLIENT", "REPLY", "OFF")
        began = time.perf_counter()
        while len(times) < len(commands):
            now = time.perf_counter()
            due = min(len(commands), int((now - began) * rate) + 1)
            if due > len(times):
                connection.send_packed_command([b"".join(commands[len(times) : due])])
                times += [now] * (due - len(times))
            time.sleep(_TICK_SECONDS)
    finally:
        connection.disconnect()
        place.client.connection_pool.release(connection)
    return times


@dataclass(slots=True)
class Seen:
    """The outputs of one stream, and the times at which they came."""

    at: list[float] = field(default_factory=list)
    entries: list[dict[bytes, bytes]] = field(default_factory=list)


@contextmanager
def watch(place: Ground, *streams: str) -> Iterator[dict[str, Seen]]:
    """Observe the outputs of streams in a thread, from now until the end of the block."""
    seen = {stream: Seen() for stream in streams}
    over = threading.Event()
    thread = threading.Thread(target=_look, args=(place, seen, over))
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _look(place: Ground, seen: dict[str, Seen], over: threading.Event) -> None:
    # Replies are stored as they come, and parsed after the measurement.
    raw: dict[str, list[tuple[float, list[Any]]]] = {stream: [] for stream in seen}
    after = dict.fromkeys(seen, b"0-0")
    connection: Any = place.client.connection_pool.get_connection()
    last, reply = False, None
    try:
        while reply or not last:  # one more read after the end, for the remaining entries
            last = over.is_set()
            connection.send_command(
                "XREAD", "COUNT", _COUNT, "BLOCK", _BLOCK_MS, "STREAMS", *after, *after.values()
            )
            reply = connection.read_response()
            now = time.perf_counter()
            for name, entries in reply.items() if isinstance(reply, dict) else reply or ():
                raw[name.decode()].append((now, entries))
                after[name.decode()] = entries[-1][0]
    finally:
        place.client.connection_pool.release(connection)
    for stream, batches in raw.items():
        for at, entries in batches:
            for _, fields in entries:
                seen[stream].at.append(at)
                seen[stream].entries.append(dict(zip(fields[::2], fields[1::2], strict=True)))
