"""Measure the cost of `deltaloom.Publisher` for its caller, in each state of the server.

`python -m bench.offers` prints, for each state, the time of 100,000 calls of `ResponseStream.offer` in
microseconds, the 99.9th percentile of the calling thread's own processor time, and the processor time that
1,000 streams with 50 deltas a second take. It needs no other program, and takes about two minutes. An empty
function is timed in the same way next to each state, so that what other programs on the machine add can be
told from what the publisher adds.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis import Redis

from deltaloom import Publisher, ResponseStream
from embedded.embedded_server import EmbeddedServer
from embedded.free_ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from deltaloom import PublisherCounters

CALLS: Final = 100_000
STREAMS: Final = 50
_BURST: Final = 50
"""Calls between two pauses of a millisecond: no caller has more than one event at a time."""

_CLOSE: Final = 0.1


class Times(NamedTuple):
    """Times of calls, in microseconds."""

    p50: float
    p99: float
    p999: float
    most: float

    own: float
    """The 99.9th percentile of the thread's own processor time."""

    def __str__(self) -> str:
        return f"{self.p50:8.1f} {self.p99:8.1f} {self.p999:8.1f} {self.most:10.1f} {self.own:8.1f}"


def percentiles(nanoseconds: Sequence[int], own: Sequence[int]) -> Times:
    """Return the percentiles of some times, and of the processor times in them."""
    last = len(nanoseconds) - 1
    ordered = sorted(nanoseconds)
    times = [ordered[round(last * share)] / 1000 for share in (0.5, 0.99, 0.999, 1.0)]
    p50, p99, p999, most = times
    return Times(p50, p99, p999, most, sorted(own)[round(last * 0.999)] / 1000)


def time_calls(call: Callable[[int], object], count: int, pause: float) -> Times:
    """Call a function many times, with pauses of `pause` seconds after each burst, and time each call."""
    clock, own_clock = time.perf_counter_ns, time.thread_time_ns
    times, own = [], []
    for number in range(count):
        if pause and number % _BURST == 0:
            time.sleep(pause)
        own_began = own_clock()
        began = clock()
        call(number)
        times.append(clock() - began)
        own.append(own_clock() - own_began)
    return percentiles(times, own)


def delta(number: int) -> dict[str, Any]:
    """Return a delta of an answer, or in one of ten cases of a refusal."""
    kind = "refusal" if number % 10 == 0 else "output_text"
    return {
        "type": f"response.{kind}.delta",
        "sequence_number": number,
        "output_index": 0,
        "content_index": 0,
        "item_id": "msg_0123456789abcdef",
        "delta": " word",
    }


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """Suspend a process for the duration of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def configured(url: str, **values: str) -> Iterator[None]:
    """Change settings of the server for the duration of the block."""
    with Redis.from_url(url) as client:
        before = {name: client.config_get(name)[name] for name in values}
        for name, value in values.items():
            client.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                client.config_set(name, value)


class _FrozenThread:
    """A client that never lets its thread return."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def ping(self) -> None:
        self._released.wait()

    def close(self) -> None:
        """Do nothing."""


def states(url: str, pid: int) -> dict[str, tuple[str, AbstractContextManager[None], dict[str, Any]]]:
    """Return the states: an address, what to do meanwhile, and settings of the publisher."""
    full = {"maxmemory-policy": "noeviction", "maxmemory": "1"}
    return {
        "well": (url, nullcontext(), {}),
        "stopped": (f"redis://{HOST}:{free_port()}", nullcontext(), {}),
        "hung": (url, suspended(pid), {}),
        "full": (url, configured(url, **full), {}),
        "wrong password": (url.replace("redis://", "redis://nobody:wrong@"), nullcontext(), {}),
        "name not resolving": ("redis://no-such-host.invalid", nullcontext(), {}),
        "thread frozen": (url, nullcontext(), {"make_client": _FrozenThread}),
    }


def measure_state(
    url: str, settings: dict[str, Any], count: int, pause: float
) -> tuple[Times, PublisherCounters]:
    """Time the offers of some streams in turn."""
    publisher = Publisher(url, **settings)
    streams = [publisher.stream() for _ in range(STREAMS)]
    events = [[delta(number)] for number in range(count // STREAMS + 1)]
    times = time_calls(lambda n: streams[n % STREAMS].offer(events[n // STREAMS]), count, pause)
    return times, publisher.close(_CLOSE)


def measure_load(
    url: str, streams: int, rate: float, seconds: float
) -> tuple[float, float, PublisherCounters]:
    """Return the share of a core that a load takes, that of its generator alone, and the counts."""
    shares = []
    counters = None
    for offers in (False, True):
        publisher = Publisher(url)
        targets = [publisher.stream() for _ in range(streams)]
        rounds = int(rate * seconds)
        events = [[delta(number)] for number in range(1, rounds + 1)]
        call: Callable[[Any, Any], object] = ResponseStream.offer if offers else _nothing
        cpu, began = time.process_time(), time.monotonic()
        for number, event in enumerate(events):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            for target in targets:
                call(target, event)
        shares.append((time.process_time() - cpu) / (time.monotonic() - began))
        counters = publisher.close(5)
    assert counters is not None  # noqa: S101 - for mypy
    return shares[1], shares[0], counters


def _nothing(stream: object, event: object) -> None:
    """Do nothing, in place of an offer."""


def main() -> int:
    """Print the figures; return 1 if an event is unaccounted for."""
    parser = argparse.ArgumentParser(prog="python -m bench.offers", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--pause", type=float, default=0.001, help="seconds between bursts of 50; 0 for none")
    parser.add_argument("--only", help="one state")
    parser.add_argument("--seconds", type=float, default=10, help="duration of the load; 0 for none")
    options = parser.parse_args()
    write = sys.stdout.write
    write(f"microseconds of {options.calls} calls      p50      p99    p99.9        max  its own p99.9\n")
    with EmbeddedServer(protected=False) as server:
        with Redis.from_url(server.url) as client:
            pid = int(client.info("server")["process_id"])
        for name, (url, meanwhile, settings) in states(server.url, pid).items():
            if options.only and name != options.only:
                continue
            with meanwhile:
                times, counters = measure_state(url, settings, options.calls, options.pause)
                empty = time_calls(lambda _: None, options.calls, options.pause)
            write(f"{name:28} {times}\n{'  an empty function':28} {empty}\n")
            ends = counters.published + counters.merged + sum(counters.dropped.values())
            write(f"  {counters.published} published, {counters.merged} merged, {dict(counters.dropped)}\n")
            if ends != counters.seen:
                write(f"  {counters.seen} seen, {ends} accounted for\n")
                return 1
        if options.seconds:
            share, idle, counters = measure_load(server.url, 1_000, 50, options.seconds)
            write(f"1,000 streams with 50 deltas a second: {share:.3f} of a core\n")
            write(f"  of which the generator alone: {idle:.3f}\n{counters}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
