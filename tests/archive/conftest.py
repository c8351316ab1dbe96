"""Databases for the tests of the archive."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from archive.migrating import migrate
from archive.postgres_database import PostgresDatabase
from archive.sql_archive import SqlArchive
from archive.sqlite_database import SqliteDatabase
from tests.archive.postgres_servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from archive.database import Database


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Callable[[str], PostgresServer]]:
    """Yield a function that returns the server of a version, which is started at the first call."""
    started = []

    @cache
    def server_of(version: str) -> PostgresServer:
        server = PostgresServer(version)
        started.append(server)
        return server.start()

    yield server_of
    for server in started:
        server.remove()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql-18", marks=pytest.mark.prove),
        pytest.param("postgresql-15", marks=pytest.mark.prove),
    ]
)
def empty_database(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_servers: Callable[[str], PostgresServer]
) -> Iterator[Database]:
    """Yield a database without tables."""
    kind, _, version = request.param.partition("-")
    if kind == "sqlite":
        opened: Database = SqliteDatabase(tmp_path / "archive.db")
        yield opened
    else:
        server = postgres_servers(version)
        import psycopg  # noqa: PLC0415 - `make test` needs no PostgreSQL

        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        opened = PostgresDatabase(server.url)
        yield opened
    opened.close()


@pytest.fixture
def database(empty_database: Database) -> Database:
    """Return a database with the tables of this version."""
    migrate(empty_database)
    return empty_database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a database of SQLite."""
    return tmp_path / "archive.db"


@pytest.fixture
def archive(path: Path) -> Iterator[SqlArchive]:
    """Yield an archive in that file, to look into it."""
    database = SqliteDatabase(path)
    migrate(database)
    opened = SqlArchive(database)
    yield opened
    opened.close()
