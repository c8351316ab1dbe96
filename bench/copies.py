"""Measure what a copy costs the caller of a streaming SDK.

`python -m bench.copies` reads streams of Chat Completions with OpenAI's SDK from a server on loopback: with a
hook, with `tee`, and without a copy, in turn. It prints the median of the ratios within a round and its 95 %
interval, of the time from the request to the last event and of the processor time of the caller's thread.
The events go to an embedded Redis server. It takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from math import comb
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import openai

import deltaloom
from deltaloom.teeing import counters
from embedded.embedded_server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROUNDS: Final = 30
CHUNKS: Final = 200
PACES: Final = (0.0, 0.005)
"""Seconds between two chunks, for each measurement."""
_WARM_UP: Final = 2
"""Rounds before those that count."""
_COVERAGE: Final = 0.95
"""Minimum probability that an interval has the median."""
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Spent(NamedTuple):
    """Seconds that a stream took its caller."""

    wall: float
    cpu: float


def chunk(number: int, chunks: int) -> bytes:
    """Return a server-sent event as a piece of a chunked body; the last one ends the answer."""
    is_last = number == chunks - 1
    delta = {} if is_last else {"content": f" word{number}"}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if is_last else None}
    message = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "gpt-5"}
    event = b"data: " + json.dumps({**message, "choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def serve(listener: socket.socket) -> None:
    """Answer requests in turn. Their path has the number of chunks and the pause in microseconds."""
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as requests:
            while first := requests.readline():
                _, chunks, pause, *_ = first.split(b" ")[1].split(b"/")
                length = 0
                while (line := requests.readline().strip().lower()) != b"":
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                requests.read(length)
                connection.sendall(_HEAD)
                for number in range(int(chunks)):
                    connection.sendall(chunk(number, int(chunks)))
                    time.sleep(int(pause) / 1e6)
                connection.sendall(b"c\r\ndata: [DONE]\r\n2\r\n\n\n\r\n0\r\n\r\n")


def read(client: openai.OpenAI, wrap: Callable[[Any], Any], expected: int) -> Spent:
    """Read a stream to its end, and return what it took.

    Raises:
        RuntimeError: the caller got another number of events.
    """
    cpu, began = time.thread_time(), time.perf_counter()
    stream = client.chat.completions.create(
        model="gpt-5", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    found = sum(1 for _ in wrap(stream))
    spent = Spent(time.perf_counter() - began, time.thread_time() - cpu)
    if found != expected:
        raise RuntimeError(f"{found} events came, {expected} were sent")
    return spent


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the narrowest pair of values around the median that covers it with at least 95 % probability.

    It needs no assumption about the distribution. Of fewer than six values it is the whole range.
    """
    ordered, count = sorted(values), len(values)
    for lowest in range((count - 1) // 2, 0, -1):
        outside = 2 * sum(comb(count, each) for each in range(lowest + 1)) / 2**count
        if 1 - outside >= _COVERAGE:
            return ordered[lowest], ordered[count - 1 - lowest]
    return ordered[0], ordered[-1]


def rounds(url: str, publisher: deltaloom.Publisher, count: int, chunks: int) -> Iterator[dict[str, Spent]]:
    """Yield what a stream took in each mode; each round begins with another mode."""
    plain, hooked = (openai.OpenAI(base_url=url, api_key="key", max_retries=0) for _ in range(2))
    deltaloom.instrument(hooked, publisher)
    modes: list[tuple[str, openai.OpenAI, Callable[[Any], Any]]] = [
        ("plain", plain, iter),
        ("hook", hooked, iter),
        ("tee", plain, lambda stream: deltaloom.tee(stream, publisher)),
    ]
    for number in range(count + _WARM_UP):
        turn = number % len(modes)
        found = {name: read(client, wrap, chunks) for name, client, wrap in (*modes[turn:], *modes[:turn])}
        if number >= _WARM_UP:
            yield found


def report(found: Sequence[dict[str, Spent]], label: str) -> Iterator[str]:
    """Yield lines with the median times, and with the ratios to those without a copy."""
    plain = [each["plain"] for each in found]
    for name in ("wall", "cpu"):
        median = 1000 * statistics.median(getattr(each, name) for each in plain)
        yield f"{label}, {name}: {median:.1f} ms without a copy"
        for mode in ("hook", "tee"):
            ratios = [getattr(each[mode], name) / getattr(each["plain"], name) for each in found]
            low, high = interval(ratios)
            more = [1000 * (getattr(each[mode], name) - getattr(each["plain"], name)) for each in found]
            yield (
                f"  {mode}: {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f}), "
                f"{statistics.median(more):+.2f} ms"
            )


def main() -> int:
    """Print the figures; return 1 if an event was lost or a copy had a fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.copies", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(socket.socket(fileno=options.serve))
    with socket.create_server(("127.0.0.1", 0)) as listener, EmbeddedServer(protected=False) as server:
        os.set_inheritable(listener.fileno(), True)  # noqa: FBT003 - the function's own argument
        command = (sys.executable, "-m", "bench.copies", "--serve", str(listener.fileno()))
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as serving:  # noqa: S603 - our own
            try:
                return _measure(server.url, listener.getsockname()[1], options)
            finally:
                serving.kill()


def _measure(redis_url: str, port: int, options: argparse.Namespace) -> int:
    write = sys.stdout.write
    write(f"{options.rounds} rounds, {options.chunks} chunks; load {os.getloadavg()[0]:.1f}\n")
    publisher = deltaloom.Publisher(redis_url)
    for pause in PACES:
        url = f"http://127.0.0.1:{port}/{options.chunks}/{round(pause * 1e6)}"
        found = list(rounds(url, publisher, options.rounds, options.chunks))
        for line in report(found, f"{pause * 1000:g} ms between chunks"):
            write(f"{line}\n")
    counts = publisher.close(10)
    write(f"{counts.published} published, {counts.merged} merged, {dict(counts.dropped)}\n")
    write(f"faults {dict(counters.faults)}; load {os.getloadavg()[0]:.1f}\n")
    return 1 if counts.dropped or counters.faults else 0


if __name__ == "__main__":
    sys.exit(main())
