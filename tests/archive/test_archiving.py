"""Test archivers on a real server: each output is archived once, whatever ends in between."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from archive.archive_app import ArchiveApp
from archive.archive_repository import ArchiveRefusedError, Filter, Inserted
from archive.archive_settings import ArchiveSettings
from archive.archive_url import database_of
from archive.archiver import Archiver
from archive.database_thread import DatabaseThread
from archive.migrating import migrate
from archive.output_group import OutputGroup, OutputStream
from archive.sql_archive import SqlArchive
from archive.sqlite_database import SqliteDatabase
from deltaloom import Partitions, StreamNames
from service.observability.status import about
from service.retrying import RetryUntilAvailable
from service.settings import SettingsError
from tests.archive.archivers import (
    ArchiverProcess,
    add,
    add_texts,
    archiving,
    pending,
    settings_of,
    start_process,
)
from tests.mortal import MortalServer
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from archive.record import Record, UnreadableEntry
    from tests.archive.postgres_servers import PostgresServer


async def wait_until_archived(redis: Redis, *streams: str) -> None:
    """Wait until everything in these streams is acknowledged."""
    for stream in streams:

        async def is_done(stream: str = stream) -> bool:
            return await pending(redis, stream) == (0, 0)

        await wait_until(is_done, message=f"{stream} is archived")


async def test_all_outputs_of_all_partitions_are_archived(
    redis: Redis, redis_url: str, prefix: str, archive: SqlArchive, path: Path
) -> None:
    """Archive texts, alerts and deliveries, and keep what cannot be read beside them; acknowledge all."""
    first, second = Partitions(2, prefix).all
    await add_texts(redis, first.assembled, 0, 700)
    await add_texts(redis, second.assembled, 700, 1)
    await add(redis, first.alerts, {"id": "alert_1", "severity": "warning", "text": "no"})
    await add(redis, second.deliveries, {"id": "delivery_1", "alert_id": "alert_1"})
    await add(redis, first.assembled, ["secret"])
    await redis.xadd(second.assembled, {"a": "b"})
    streams = [name for each in (first, second) for name in (each.assembled, each.alerts, each.deliveries)]
    settings = settings_of(redis_url, prefix, f"sqlite:{path}", partitions=2, claim_time=60)
    async with archiving(settings) as app:
        await wait_until(lambda: app.started, message="it reads")
        await wait_until_archived(redis, *streams)
        assert app.not_ready() == []
        await add_texts(redis, second.assembled, 701, 1)
        await wait_until_archived(redis, *streams)
        assert (await app.status())["entries"] == {"new": 704, "repeated": 0, "conflicts": 0, "unreadable": 2}
    assert app.not_ready() == ["stopping"]
    families = [each.record.family for each in archive.page(limit=1000)]
    assert {family: families.count(family) for family in families} == {"text": 702, "alert": 1, "delivery": 1}
    assert {each.reason for each in archive.unreadable()} == {
        "it is not a JSON object",
        "it has no field __data__",
    }
    assert {each.record.source for each in archive.page(Filter(family="alert"))} == {prefix}


async def test_what_a_dead_archiver_left_is_archived(
    redis: Redis, redis_url: str, prefix: str, archive: SqlArchive, path: Path
) -> None:
    """Claim the entries that another consumer has read and not acknowledged, in more than one page."""
    stream = StreamNames(prefix).assembled
    await add_texts(redis, stream, 0, 250)
    await redis.xgroup_create(stream, "archive", id="0")
    await redis.xreadgroup("archive", "dead", {stream: ">"}, count=250)
    async with archiving(settings_of(redis_url, prefix, f"sqlite:{path}")) as app:
        await wait_until_archived(redis, stream)
        await wait_until(lambda: app.archiver.counts["new"] == 250, message="all are counted")
    assert archive.counts()["records"] == 250


async def test_entries_trimmed_while_pending_are_counted(
    redis: Redis, redis_url: str, prefix: str, path: Path
) -> None:
    """Count entries that were trimmed before an archiver could claim them, and go on."""
    stream = StreamNames(prefix).assembled
    await add_texts(redis, stream, 0, 3)
    await redis.xgroup_create(stream, "archive", id="0")
    await redis.xreadgroup("archive", "dead", {stream: ">"})
    await redis.xtrim(stream, maxlen=0, approximate=False)
    async with archiving(settings_of(redis_url, prefix, f"sqlite:{path}")) as app:
        await wait_until(lambda: app.archiver.counts["lost"] == 3, message="they are counted")
        assert await pending(redis, stream) == (0, 0)


async def test_it_waits_for_its_database(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Start before the database can be opened, and archive when it can be."""
    folder = tmp_path / "not_yet"
    stream = StreamNames(prefix).assembled
    await add_texts(redis, stream, 0, 3)
    async with archiving(settings_of(redis_url, prefix, f"sqlite:{folder}/archive.db")) as app:
        await wait_until(lambda: app.archiver.away, message="the database is away")
        assert app.not_ready() == ["starting"]
        folder.mkdir()
        await wait_until(lambda: app.archiver.counts["new"] == 3, message="they are archived")
        assert app.archiver.away is None


async def test_it_waits_for_redis(tmp_path: Path, archive: SqlArchive, path: Path) -> None:
    """Go on after the server was killed and has come back, and after it lost all its data."""
    server = await MortalServer(tmp_path).start()
    stream = StreamNames().assembled
    try:
        async with archiving(settings_of(server.url, "deltaloom", f"sqlite:{path}")) as app:
            async with Redis.from_url(server.url) as redis:
                await add_texts(redis, stream, 0, 5)
            await wait_until(lambda: app.archiver.counts["new"] == 5, message="the first are archived")
            await server.kill()
            await wait_until(lambda: app.not_ready() == ["redis: ConnectionError"], message="it is away")
            await server.start()
            async with Redis.from_url(server.url) as redis:
                await add_texts(redis, stream, 5, 5)
                await wait_until(lambda: app.archiver.counts["new"] == 10, message="the next are archived")
                await redis.flushall()
                await add_texts(redis, stream, 8, 5)
            await wait_until(lambda: app.archiver.counts["new"] == 13, message="the last are archived")
        assert archive.counts()["records"] == 13
    finally:
        await server.kill()


async def test_a_batch_that_was_committed_but_not_acknowledged_comes_again(
    redis: Redis, prefix: str, archive: SqlArchive
) -> None:
    """Acknowledge after the commit: entries of an archiver that dies in between make no new rows."""
    stream = OutputStream(StreamNames(prefix).assembled, "text", prefix)
    await add_texts(redis, stream.name, 0, 3)

    class Dying(OutputGroup):
        async def acknowledge(self, entry_ids: Sequence[bytes]) -> None:
            assert len(entry_ids) == archive.counts()["records"]
            raise asyncio.CancelledError

    group = OutputGroup(redis, stream, "archive", "second")
    await group.ensure()
    reply: Any = await redis.xreadgroup("archive", "first", {stream.name: ">"})
    ((_, read),) = reply.items() if isinstance(reply, dict) else reply
    entries = [(entry_id, [part for field in pairs.items() for part in field]) for entry_id, pairs in read]
    thread = DatabaseThread()
    archiver = Archiver(archive, thread, RetryUntilAvailable())
    with pytest.raises(asyncio.CancelledError):
        await archiver.take(stream, Dying(redis, stream, "archive", "first"), entries)
    assert await pending(redis, stream.name) == (3, 0)
    await archiver.take(stream, group, (await group.claim(0, "0-0")).entries)
    thread.stop()
    assert archiver.counts == {"repeated": 3, "new": 0, "conflicts": 0, "unreadable": 0}
    assert await pending(redis, stream.name) == (0, 0)


async def test_the_next_batch_is_read_while_one_is_written(redis: Redis, prefix: str) -> None:
    """Take one batch more than is written, and none before the first is; acknowledge both in the end."""
    stream = OutputStream(StreamNames(prefix).assembled, "text", prefix)
    await add_texts(redis, stream.name, 0, 3)
    group = OutputGroup(redis, stream, "archive", "c")
    await group.ensure()
    await redis.xreadgroup("archive", "c", {stream.name: ">"})
    entries = (await group.claim(0, "0-0")).entries
    may_commit = threading.Event()

    class Slow(SqlArchive):
        def __init__(self) -> None:
            """Insert nothing."""

        def insert(self, records: Sequence[Record], unreadable: Sequence[UnreadableEntry] = ()) -> Inserted:  # noqa: ARG002 - nothing is unreadable
            may_commit.wait()
            return Inserted(len(records))

    thread = DatabaseThread()
    archiver = Archiver(Slow(), thread, RetryUntilAvailable())
    await archiver.take_while_reading(stream, group, entries[:1])
    second = asyncio.create_task(archiver.take_while_reading(stream, group, entries[1:]))
    await asyncio.sleep(0)  # let it begin
    await archiver.finish(0.05)
    assert archiver.counts["new"] == 0
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await pending(redis, stream.name) == (3, 0)
    may_commit.set()
    archiver = Archiver(Slow(), thread, RetryUntilAvailable())
    await archiver.take_while_reading(stream, group, entries)
    await archiver.finish(60)
    thread.stop()
    assert archiver.counts["new"] == 3
    assert await pending(redis, stream.name) == (0, 0)


async def test_a_refused_record_does_not_keep_its_neighbours(
    redis: Redis, prefix: str, archive: SqlArchive
) -> None:
    """Keep a record that the database refuses as unreadable, with the reason, and archive the others."""

    class Refusing(SqlArchive):
        def __init__(self) -> None:
            """Refuse one record of the archive."""

        def insert(self, records: Sequence[Record], unreadable: Sequence[UnreadableEntry] = ()) -> Inserted:
            if any(record.id == "text_3" for record in records):
                raise ArchiveRefusedError("DataError 22P05")
            return archive.insert(records, unreadable)

    stream = OutputStream(StreamNames(prefix).assembled, "text", prefix)
    await add_texts(redis, stream.name, 0, 7)
    group = OutputGroup(redis, stream, "archive", "c")
    await group.ensure()
    await redis.xreadgroup("archive", "c", {stream.name: ">"})
    thread = DatabaseThread()
    archiver = Archiver(Refusing(), thread, RetryUntilAvailable())
    await archiver.take(stream, group, (await group.claim(0, "0-0")).entries)
    thread.stop()
    assert archiver.counts == {"new": 6, "repeated": 0, "conflicts": 0, "unreadable": 1}
    assert [each.reason for each in archive.unreadable()] == ["the database refuses it: DataError 22P05"]
    assert archive.unreadable()[0].response_id == "resp_3"


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite:", "postgresql:/u:secret@h"])
def test_a_wrong_url_is_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Name the variable, and not its value, which may have a password."""
    monkeypatch.setenv("DELTALOOM_ARCHIVE_URL", url)
    with pytest.raises(SettingsError, match="DELTALOOM_ARCHIVE_URL=") as raised:
        ArchiveSettings.read()
    assert "secret" not in str(raised.value)


def test_the_url_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Read the URL from a file, and show it neither in the log nor to those who ask for the status."""
    (tmp_path / "url").write_text("postgresql://u:secret@h/d\n")
    monkeypatch.setenv("DELTALOOM_ARCHIVE_URL_FILE", str(tmp_path / "url"))
    settings = ArchiveSettings.read()
    assert settings.archive_url == "postgresql://u:secret@h/d"
    assert "secret" not in repr(settings) + repr(about(settings))


async def test_tables_of_a_later_version_are_refused(redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Refuse to start on tables of a later version, and say so."""
    database = SqliteDatabase(tmp_path / "archive.db")
    migrate(database)
    with database.transaction(writing=True) as session:
        session.run("INSERT INTO archive_migrations (number, name) VALUES (999, 'later')")
    database.close()
    app = ArchiveApp(settings_of(redis_url, prefix, f"sqlite:{tmp_path}/archive.db"))
    with pytest.raises(SettingsError, match="0999 of a later version"):
        await app.start()
    await app.stop()


@pytest.fixture(
    params=[pytest.param("sqlite", marks=pytest.mark.slow), pytest.param("18", marks=pytest.mark.prove)]
)
def place(
    request: pytest.FixtureRequest, path: Path, postgres_servers: Callable[[str], PostgresServer]
) -> tuple[str, PostgresServer | None]:
    """Return the URL of an archive with tables, and its server."""
    if request.param == "sqlite":
        return f"sqlite:{path}", None
    server = postgres_servers(request.param)
    database = database_of(settings_of("redis://localhost", "p", server.url))
    migrate(database, 0)
    migrate(database)
    database.close()
    return server.url, server


async def test_killed_archivers_lose_and_double_nothing(
    redis: Redis, redis_url: str, prefix: str, place: tuple[str, PostgresServer | None], tmp_path: Path
) -> None:
    """Kill archivers, and the database, while texts are produced: the archive has each once."""
    url, server = place
    stream, produced, kills = StreamNames(prefix).assembled, 0, 5
    archive = SqlArchive(database_of(settings_of(redis_url, prefix, url)))

    async def start(number: int) -> ArchiverProcess:
        return await start_process(redis_url, prefix, url, tmp_path / f"log_{number}")

    async def are_coming() -> bool:
        return archive.counts()["records"] > produced - 900

    running = [await start(0), await start(1)]
    logs = [each.log for each in running]
    try:
        for number in range(kills):
            await wait_until(running[0].has_started, 60, message="an archiver has started")
            await add_texts(redis, stream, produced, 1000)
            produced += 1000
            await wait_until(are_coming, 60, message="texts are archived")
            await running.pop(0).kill()
            if server is not None and number % 3 == 1:
                archive.close()
                server.stop()
                server.start()
            running.append(await start(number + 2))
            logs.append(running[-1].log)
        await wait_until_archived(redis, stream)
        for each in running:
            await wait_until(each.has_started, 60, message="the others have started")
            assert await each.stop() == 0, each.log.read_text()[-2000:]
    finally:
        for each in running:
            await each.kill()
    found = [each.record.id for each in archive.page(limit=2 * produced)]
    assert sorted(found) == sorted(f"text_{number}" for number in range(produced))
    counts = archive.counts()
    assert (counts["records"], counts["conflicts"], counts["unreadable_entries"]) == (produced, 0, 0)
    written = "".join(log.read_text() for log in logs)
    assert "No 1" not in written
    assert "secret-word" not in written
    archive.close()
