"""The copier: the process that translates and publishes the copies.

It reads frames from a socket until the forwarder closes it, and then publishes what is left. It reports its
figures on the same socket, one JSON line a second. It ignores SIGTERM, SIGINT and SIGHUP: the forwarder
decides when it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypedDict, cast

from service.cli.process_wide import lean_imports
from tap.copy_frames import BEGIN, HEAD, PIECE, FrameReader, beginning_of

with lean_imports():
    from deltaloom.address import Address
    from deltaloom.publishing import Publisher
    from deltaloom.publishing.sending import client_of
    from deltaloom.teeing import counters as teeing
    from deltaloom.teeing.stream_copy import StreamCopy

if TYPE_CHECKING:
    from deltaloom.dialects import EndReason
    from deltaloom.teeing import CopyContext, EventPublisher
    from tap.copy_frames import CopierSettings, CopyFrame

READ_BYTES: Final = 256 * 1024
"""Maximum bytes of frames that one read returns."""
REPORT_SECONDS: Final = 1.0
"""Seconds between two reports."""
NICENESS: Final = 5
"""Increase of the nice value: on a busy machine, the forwarder runs first."""
PUBLISH_SECONDS: Final = 5.0
"""Maximum seconds for which the copier, at its end, waits for Redis."""
REDIS_SECONDS: Final = 2.0
"""Maximum seconds for a connection to Redis, and for each read and write."""


class CopierFigures(TypedDict):
    """A report. `PublisherCounters` describes the fields from `seen` on."""

    taken_bytes: int
    """Bytes of bodies that came out of the pipe."""
    copies: int
    """Responses that were published, or began to be."""
    open: int
    """Copies that have not ended."""
    errors_left_out: int
    """HTTP errors that no policy caused, which are not published."""
    faults: dict[str, int]
    """Faults of the translation, by exception and place."""
    seen: int
    published: int
    merged: int
    dropped: dict[str, int]
    waiting: int
    waiting_bytes: int
    entries: int
    failures: dict[str, int]


class Copier:
    """Translates and publishes the copies of a pipe.

    Args:
        end: the socket, in blocking mode.
        publisher: publisher of the events; it is closed at the end.
        publish_seconds: maximum seconds for which the end waits for Redis.
    """

    def __init__(
        self, end: socket.socket, publisher: Publisher, publish_seconds: float = PUBLISH_SECONDS
    ) -> None:
        self._end = end
        self._publisher = publisher
        self._publish_seconds = publish_seconds
        self._reader = FrameReader()
        self._copies: dict[int, StreamCopy] = {}
        self._taken = 0
        self._report_rest = b""
        """End of a report that the socket did not take at once."""

    def run(self) -> None:
        """Copy until the other end closes the socket; publish what is left, and report for the last time."""
        self._end.settimeout(REPORT_SECONDS)
        next_report = 0.0
        while True:
            try:
                data = self._end.recv(READ_BYTES)
            except TimeoutError:
                data = None
            except OSError:
                break
            if data == b"":
                break
            for frame in self._reader.feed(data) if data else ():
                self._take(frame)
            if (now := time.monotonic()) >= next_report:
                next_report = now + REPORT_SECONDS
                self._report()
        for copy in self._copies.values():
            copy.end("interrupted")
        self._copies.clear()
        self._publisher.close(self._publish_seconds)
        self._report()

    def _take(self, frame: CopyFrame) -> None:
        if frame.kind == BEGIN:
            beginning = beginning_of(frame.payload)
            self._copies[frame.number] = StreamCopy(
                cast("EventPublisher", self._publisher),
                cast("CopyContext", beginning["context"]),
                **beginning["translation"],
            )
        elif frame.kind == PIECE:
            self._taken += len(frame.payload)
            copy = self._copies[frame.number]
            copy.hold(frame.payload)
            copy.take()
        else:
            self._copies.pop(frame.number).end(cast("EndReason", frame.payload.decode()))

    def _report(self) -> None:
        if not self._report_rest:
            self._report_rest = json.dumps(self.figures()).encode() + b"\n"
        with contextlib.suppress(OSError):  # the forwarder is busy, or gone
            sent = self._end.send(self._report_rest, socket.MSG_DONTWAIT)
            self._report_rest = self._report_rest[sent:]

    def figures(self) -> CopierFigures:
        """Return the figures of this process."""
        books = self._publisher.counters
        return {
            "taken_bytes": self._taken,
            "copies": teeing.responses,
            "open": len(self._copies),
            "errors_left_out": teeing.errors_left_out,
            "faults": dict(teeing.faults),
            "seen": books.seen,
            "published": books.published,
            "merged": books.merged,
            "dropped": dict(books.dropped),
            "waiting": books.waiting,
            "waiting_bytes": books.waiting_bytes,
            "entries": books.entries,
            "failures": dict(books.failures),
        }


def publisher_of(settings: CopierSettings) -> Publisher:
    """Return a publisher to the server of the settings."""
    address = Address.parse(settings["redis_url"], settings["redis_mode"])
    return Publisher(
        settings["redis_url"],
        prefix=settings["prefix"],
        partitions=settings["partitions"],
        budget=settings["budget"],
        max_event_bytes=settings["max_event_bytes"],
        make_client=partial(client_of, address, REDIS_SECONDS),
    )


def main(descriptor: int) -> None:
    """Run the process.

    Args:
        descriptor: number of the socket.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    end = socket.socket(fileno=descriptor)
    end.settimeout(None)
    _, _, length = HEAD.unpack(end.recv(HEAD.size, socket.MSG_WAITALL))
    settings = json.loads(end.recv(length, socket.MSG_WAITALL))
    Copier(end, publisher_of(settings)).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
