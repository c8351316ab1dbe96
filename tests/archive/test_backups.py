"""Test backup and restore of the archive, and the roles of PostgreSQL, as docs/archive.md has them."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import pytest

from archive.archive_repository import RecordSubject
from archive.archive_url import database_of
from archive.migrating import check, migrate
from archive.sql_archive import SqlArchive
from deltaloom import StreamNames
from tests.archive.archivers import add_texts, archiving, pending, settings_of
from tests.archive.postgres_servers import programs_of
from tests.docs.pages import ROOT
from tests.tiers import need
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

    from archive.archive_settings import ArchiveSettings
    from tests.archive.postgres_servers import PostgresServer

VERSION = "15"
ROLES = ROOT / "deploy/postgresql/roles.sql"
GRANT = "GRANT INSERT ON archive.looks TO archive_reader"


class Place(Protocol):
    """A database that can be saved, lost and restored."""

    url: str

    def save(self) -> None:
        """Make a backup, while the archive is in use."""
        ...

    def lose(self) -> None:
        """Remove the database."""
        ...

    def restore(self) -> None:
        """Make the database anew, from the backup."""
        ...


class FilePlace:
    """A file of SQLite."""

    def __init__(self, folder: Path) -> None:
        self._file, self._copy = folder / "archive.db", folder / "copy.db"
        self.url = f"sqlite:{self._file}"

    def save(self) -> None:
        """Copy the file with the program of SQLite."""
        sqlite3 = need("sqlite3", what="sqlite3", package="sqlite3")
        subprocess.run([sqlite3, self._file, f".backup {self._copy}"], check=True)

    def lose(self) -> None:
        """Remove the file, and those beside it."""
        for file in self._file.parent.glob("archive.db*"):
            file.unlink()

    def restore(self) -> None:
        """Copy the copy."""
        shutil.copy(self._copy, self._file)


class ServerPlace:
    """A database of PostgreSQL, with the roles of deploy/postgresql."""

    def __init__(self, server: PostgresServer, version: str, folder: Path) -> None:
        self._server = urlsplit(server.url)
        self._programs = programs_of(version)
        self._dump = str(folder / "archive.dump")
        self.url = self._url_of("archiver")

    def create(self) -> None:
        """Create database, roles and tables."""
        self._run("createdb", "deltaloom")
        self.execute("postgres", ROLES.read_text("utf-8"))
        database = database_of(settings_of("redis://localhost", "p", self.url))
        migrate(database)
        database.close()
        self.execute("archiver", GRANT)

    def execute(self, user: str, statements: str) -> None:
        """Run statements as a user."""
        import psycopg  # noqa: PLC0415 - `make test` needs no PostgreSQL

        with psycopg.connect(self._url_of(user), autocommit=True) as connection:
            connection.execute(statements)

    def opened(self, user: str) -> SqlArchive:
        """Return the archive as a user has it, after the check that commands make."""
        url = self._url_of(user)
        database = database_of(settings_of("redis://localhost", "p", url))
        check(database)
        return SqlArchive(database)

    def save(self) -> None:
        """Dump the database."""
        self._run("pg_dump", "--format=custom", f"--file={self._dump}", "deltaloom")

    def lose(self) -> None:
        """Drop the database."""
        self._run("dropdb", "deltaloom")

    def restore(self) -> None:
        """Restore the dump into a new database."""
        self._run("createdb", "deltaloom")
        self._run("pg_restore", "--exit-on-error", "--dbname=deltaloom", self._dump)

    def _url_of(self, user: str) -> str:
        return f"postgresql://{user}@{self._server.hostname}:{self._server.port}/deltaloom"

    def _run(self, program: str, *arguments: str) -> None:
        """Run a client program as the superuser."""
        of_server = ("-h", str(self._server.hostname), "-p", str(self._server.port), "-U", "postgres")
        subprocess.run([self._programs / program, *of_server, *arguments], check=True)

    def remove(self) -> None:
        """Drop the database and the roles."""
        self.lose()
        for role in ("archiver", "archive_reader"):
            self._run("dropuser", role)


@contextmanager
def on_server(server: PostgresServer, folder: Path) -> Iterator[ServerPlace]:
    """Yield a database of Debian's server; the other one comes without client programs."""
    found = ServerPlace(server, VERSION, folder)
    found.create()
    try:
        yield found
    finally:
        found.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.prove)])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_servers: Callable[[str], PostgresServer]
) -> Iterator[Place]:
    """Yield a database of each kind."""
    if request.param == "sqlite":
        yield FilePlace(tmp_path)
    else:
        with on_server(postgres_servers(VERSION), tmp_path) as found:
            yield found


def erase(settings: ArchiveSettings, response_id: str) -> None:
    """Erase the only record of a response."""
    archive = SqlArchive(database_of(settings))
    erased = archive.erase(RecordSubject("response_id", response_id), "Ann").erased
    archive.close()
    assert erased["records"] == 1


async def test_what_came_after_the_backup_is_read_again(
    redis: Redis, redis_url: str, prefix: str, place: Place
) -> None:
    """Restore a backup, and have the archivers read again what Redis still has: all is there once."""
    stream = StreamNames(prefix).assembled
    settings = settings_of(redis_url, prefix, place.url)

    async def is_archived() -> bool:
        return await pending(redis, stream) == (0, 0)

    async with archiving(settings) as app:
        await add_texts(redis, stream, 0, 10)
        await wait_until(lambda: app.archiver.counts["new"] == 10, message="the first are archived")
        place.save()
        await add_texts(redis, stream, 10, 10)
        await wait_until(lambda: app.archiver.counts["new"] == 20, message="the next are archived")
        await wait_until(is_archived, message="they are acknowledged")
    erase(settings, "resp_3")
    place.lose()
    place.restore()
    async with archiving(settings) as app:
        await add_texts(redis, stream, 20, 1)
        await wait_until(lambda: app.archiver.counts["new"] == 1, message="it goes on")
        assert app.archiver.counts["repeated"] == 0  # by itself, it reads nothing again
        erase(settings, "resp_3")  # the backup had it
        await redis.xgroup_setid(stream, "archive", "0")
        await wait_until(lambda: app.archiver.counts["repeated"] == 11, message="all is read again")
        await wait_until(is_archived, message="all is acknowledged")
        assert app.archiver.counts["new"] == 11
    archive = SqlArchive(database_of(settings))
    records = archive.page()
    expected = {f"text_{number}" for number in range(21)} - {"text_3"}
    assert sorted(each.record.id for each in records) == sorted(expected)
    assert len({each.number for each in records}) == 20
    assert [each.record.id for each in archive.search("no 15")] == ["text_15"]
    archive.close()


@pytest.mark.prove
async def test_roles_may_do_their_work_only(
    redis: Redis,
    redis_url: str,
    prefix: str,
    postgres_servers: Callable[[str], PostgresServer],
    tmp_path: Path,
) -> None:
    """Archive as `archiver`; as `archive_reader` read and add looks, and change nothing else."""
    with on_server(postgres_servers(VERSION), tmp_path) as place:
        await add_texts(redis, StreamNames(prefix).assembled, 0, 3)
        async with archiving(settings_of(redis_url, prefix, place.url)) as app:
            await wait_until(lambda: app.archiver.counts["new"] == 3, message="all are archived")
        reader, subject = place.opened("archive_reader"), RecordSubject("response_id", "resp_1")
        assert [each.record.id for each in reader.search("no 1")] == ["text_1"]
        assert len(reader.page()) == 3
        assert len(reader.of_response("resp_1")) == 1
        reader.add_look("Ann", "search", 1)
        assert reader.holds() == []
        for step in (
            lambda: reader.hold(subject, "Ann", "case 7"),
            lambda: reader.erase(subject, "Ann"),
            lambda: reader.insert([reader.page()[0].record]),
            lambda: place.execute("archive_reader", "DELETE FROM looks"),
            lambda: place.execute("archive_reader", "CREATE TABLE archive.mine ()"),
        ):
            with pytest.raises(Exception, match=r"InsufficientPrivilege|permission denied"):
                step()
        reader.close()
        archiver = place.opened("archiver")
        assert [look.who for look in archiver.looks()] == ["Ann"]
        archiver.hold(subject, "Ann", "case 7")
        assert archiver.erase(RecordSubject("response_id", "resp_2"), "Ann").erased["records"] == 1
        archiver.close()
