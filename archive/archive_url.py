"""Open the database that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive.migrating import check, migrate
from archive.sqlite_database import SqliteDatabase
from service.settings import SettingsError

if TYPE_CHECKING:
    from archive.archive_settings import ArchiveSettings
    from archive.database import Database


def database_of(settings: ArchiveSettings) -> Database:
    """Return the database of the settings, without connecting to it.

    Raises:
        SettingsError: the program has no library for it.
    """
    if settings.archive_file is not None:
        return SqliteDatabase(settings.archive_file)
    try:
        from archive.postgres_database import PostgresDatabase  # noqa: PLC0415 - it is of an extra
    except ImportError:
        raise SettingsError(
            "DELTALOOM_ARCHIVE_URL names PostgreSQL, and psycopg is missing: install the extra `archive`, "
            "or use sqlite: and a path"
        ) from None
    return PostgresDatabase(settings.archive_url)


def prepare_tables(settings: ArchiveSettings, database: Database) -> None:
    """Create the tables of a file; check those of a server, which `deltaloom archive migrate` creates.

    Raises:
        SchemaError: the tables are not those of this version.
        ArchiveUnavailableError: the database is away.
    """
    if settings.archive_file is None:
        check(database)
    else:
        migrate(database)
