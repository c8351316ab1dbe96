"""Open the database that the settings name."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from archive.migrating import check, migrate
from archive.sqlite_database import SqliteDatabase
from service.settings import SettingsError, variable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archive.archive_settings import ArchiveSettings
    from archive.database import Database

_MAGIC = b"SQLite format 3\0"
"""Beginning of a file of SQLite."""


def database_of(settings: ArchiveSettings) -> Database:
    """Return the database of the settings, without connecting to it.

    Raises:
        SettingsError: the program has no library for it, or the URL cannot be used.
    """
    if settings.archive_file is not None:
        _refuse(settings.archive_file, _refusal_of_present)
        return SqliteDatabase(settings.archive_file)
    try:
        from archive.postgres_database import PostgresDatabase  # noqa: PLC0415 - it is of an extra
    except ImportError:
        raise SettingsError(
            "DELTALOOM_ARCHIVE_URL names PostgreSQL, and psycopg is missing: install the extra `archive`, "
            "or use sqlite: and a path"
        ) from None
    if not PostgresDatabase.understands(settings.archive_url):
        raise SettingsError(
            f"{variable('archive_url')}=(not shown) is not allowed: PostgreSQL's library cannot read it; "
            "check the names after its ?, the brackets of an IPv6 address, and that its %-codes are UTF-8"
        )
    return PostgresDatabase(settings.archive_url)


def check_folder(settings: ArchiveSettings) -> None:
    """Check that a file of SQLite has a folder that can be written. An archiver waits for it instead.

    Raises:
        SettingsError: it has none.
    """
    if settings.archive_file is not None:
        _refuse(settings.archive_file, _refusal_of_folder)


def _refuse(file: Path, refusal_of: Callable[[Path], str | None]) -> None:
    try:
        reason = refusal_of(file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        reason = f"it cannot be used ({why}): name another one"
    if reason is not None:
        raise SettingsError(f"{variable('archive_url')}=sqlite:{file} is not allowed: {reason}")


def _refusal_of_folder(file: Path) -> str | None:
    folder = file.parent
    if not folder.is_dir():
        return f"there is no folder {folder}: create it, or name another one"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"the folder {folder} cannot be written: SQLite adds files beside the database"
    return None


def _refusal_of_present(file: Path) -> str | None:
    try:
        mode = file.stat().st_mode  # `exists` hides other errors from Python 3.14 on
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(mode):
        return "it is no file: add the name of one"
    with file.open("rb") as opened:
        beginning = opened.read(len(_MAGIC))
    return None if beginning in (b"", _MAGIC) else "it is no database of SQLite: name another file"


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
