"""A publisher that sends prepared commands at a steady rate, in a process of its own.

Neither the bench's Python nor its garbage collector disturbs it. Commands that are due are sent together,
every millisecond, and no reply is waited for. The schedule waits for no competitor, so that a slow one cannot
catch up. All times are those of `time.monotonic`, which is one clock for all processes of a machine.

`python -m bench.publisher RATE COUNT` reads from its input the ends of the commands (COUNT unsigned integers
of 8 bytes), then the commands. It prints the time of its start, and at the end the time at which it sent each
command, as floats of 8 bytes.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from redis import Redis

from bench.errors import BenchError

if TYPE_CHECKING:
    from types import TracebackType

    from bench.entries import Load
    from bench.ground import Ground

_ROOT = Path(__file__).parents[1]
_TICK_SECONDS = 0.001
_URL = "BENCH_REDIS_URL"


class Publisher:
    """The process that publishes an input, which runs while the `with` block lasts.

    Args:
        place: server to publish on.
        load: input, prepared for the stream that it goes to.
        rate: entries per second.
    """

    def __init__(self, place: Ground, load: Load, rate: float) -> None:
        self._load = load
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            (sys.executable, "-m", "bench.publisher", repr(rate), str(load.entries)),
            cwd=_ROOT,
            env=os.environ | {_URL: place.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process:  # closes the pipes, and waits for the end
            self._process.kill()

    def begin(self) -> float:
        """Pass the commands on, wait until the process begins to publish, and return the time of that."""
        to: Any = self._process.stdin
        to.write(self._load.ends.tobytes())
        for chunk in self._load.chunks:
            to.write(chunk)
        to.close()
        return self._times(1)[0]

    def sent(self) -> array[float]:
        """Wait until all entries are on the server, and return the time at which each was sent."""
        return self._times(self._load.entries)

    def _times(self, count: int) -> array[float]:
        """Return the next times that the process prints.

        Raises:
            BenchError: the process has ended before.
        """
        source: Any = self._process.stdout
        times = array("d")
        printed = source.read(count * times.itemsize)
        if len(printed) < count * times.itemsize:
            raise BenchError(f"the publisher ended, exit code {self._process.wait()}")
        times.frombytes(printed)
        return times


def main() -> None:
    """Publish the input's commands, and print the times."""
    rate, count = float(sys.argv[1]), int(sys.argv[2])
    ends = array("Q")
    ends.frombytes(sys.stdin.buffer.read(count * ends.itemsize))
    commands = memoryview(sys.stdin.buffer.read())
    connection: Any = Redis.from_url(os.environ[_URL], socket_timeout=None).connection_pool.get_connection()
    connection.send_command("CLIENT", "REPLY", "OFF")
    gc.disable()
    sent = publish(connection, commands, ends, rate)
    connection.send_command("CLIENT", "REPLY", "ON")
    connection.read_response()  # comes when the server has executed all commands before
    sys.stdout.buffer.write(sent.tobytes())


def publish(connection: Any, commands: memoryview, ends: array[int], rate: float) -> array[float]:
    """Print the time, send the commands at a steady rate, and return the time at which each was sent."""
    times = array("d")
    began = time.monotonic()
    sys.stdout.buffer.write(array("d", [began]).tobytes())
    sys.stdout.buffer.flush()
    first = 0
    while len(times) < len(ends):
        now = time.monotonic()
        due = min(len(ends), int((now - began) * rate) + 1)
        if due > len(times):
            last = ends[due - 1]
            connection.send_packed_command([commands[first:last]])
            times.extend([now] * (due - len(times)))
            first = last
        time.sleep(max(_TICK_SECONDS, began + len(times) / rate - now))
    return times


if __name__ == "__main__":
    main()
