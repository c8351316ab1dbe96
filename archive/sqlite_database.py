"""The archive's database in a file, with the SQLite of the standard library."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archive.archive_repository import ArchiveRefusedError, ArchiveUnavailableError, Remainder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from archive.database import Session, TablePartition
    from archive.record import Record

_BUSY_SECONDS = 10.0
"""Seconds to wait for the transaction of another process."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SqliteSession:
    """An open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a statement; return its rows."""
        return self._connection.execute(statement, values).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; return the number of rows that it changed."""
        return self._connection.execute(statement, values).rowcount

    def add_keys(self, keys: Sequence[tuple[str, str, bytes]]) -> set[tuple[str, str]]:
        """Insert new keys; see `Session.add_keys`."""
        statement = "INSERT INTO record_keys (source, id, digest) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        run = self._connection.execute
        return {key[:2] for key in keys if run(statement, key).rowcount}

    def add_records(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert records; see `Session.add_records`."""
        marks = ", ".join("?" * len(columns))
        self._connection.executemany(
            f"INSERT INTO records ({', '.join(columns)}) VALUES ({marks})",  # noqa: S608
            rows,
        )

    def has_table(self, name: str) -> bool:
        """Return whether there is a table with this name."""
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)))

    def run_script(self, statements: str) -> None:
        """Run several statements in this transaction; `executescript` would commit it."""
        statement = ""
        for line in statements.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                self._connection.execute(statement)
                statement = ""


class SqliteDatabase:
    """A file. Any thread may use it, one at a time.

    Args:
        path: path of the file, which is created if it does not exist.
        busy: seconds to wait for the transactions of other processes.
    """

    migrations = Path(__file__).parent / "migrations" / "sqlite"

    def __init__(self, path: Path, busy: float = _BUSY_SECONDS) -> None:
        self._path = path
        self._busy = busy
        self._open: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self, *, writing: bool = False) -> Iterator[SqliteSession]:
        """Open a transaction; see `Database.transaction`."""
        with _translated():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            try:
                yield SqliteSession(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def prepare(self, session: Session, records: Iterable[Record]) -> None:
        """Do nothing, since there are no partitions."""

    def partitions(self, session: Session) -> list[TablePartition]:  # noqa: ARG002
        """Return none."""
        return []

    def tables(self, session: Session, beginning: str) -> list[str]:
        """Return the tables whose names begin with `beginning`."""
        statement = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, ?) = ?"
        return [name for (name,) in session.rows(statement, (len(beginning), beginning))]

    def with_words(self, words: str, after: int) -> tuple[str, list[Any]]:
        """Return a condition for records with all these words and numbers above `after`."""
        quoted = " ".join('"{}"'.format(word.replace('"', '""')) for word in words.split())
        numbers = "SELECT rowid FROM record_words WHERE record_words MATCH ? AND rowid > ?"
        return f"number IN ({numbers})", [quoted, after]

    def with_part(self, part: str) -> tuple[str, list[Any]]:
        """Return a condition for records with this string. It reads all texts."""
        return "instr(lower(words), lower(?)) > 0", [part]

    def of_time(self, at: datetime) -> int:
        """Return microseconds since 1970."""
        return (at - _EPOCH) // _MICROSECOND

    def to_time(self, stored: Any) -> datetime:
        """Return the time of microseconds since 1970."""
        return _EPOCH + int(stored) * _MICROSECOND

    def scrub(self) -> list[Remainder]:
        """Write the index anew without deleted words, and empty the write-ahead log.

        A transaction that began earlier still reads the old pages, in the file and in the log.
        """
        with self.transaction(writing=True) as session:
            session.run("INSERT INTO record_words (record_words) VALUES ('optimize')")
        with _translated():
            ((busy, _, _),) = self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if not busy:
            return []
        until = "until you erase again: another process had it open in a transaction"
        return [Remainder("SQLite: file and write-ahead log", until)]

    def tidy(self) -> None:
        """Scrub, since the index keeps the words of deleted rows until parts of it are merged."""
        self.scrub()

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            # Permissions of the file and those beside it are the owner's only: it has the texts of users.
            if not self._path.exists():
                self._path.touch(mode=0o600)
            self._open = sqlite3.connect(
                self._path, timeout=self._busy, isolation_level=None, check_same_thread=False
            )
            try:
                self._open.execute("PRAGMA journal_mode = WAL").fetchall()
                # A commit is on the disk before its entries are acknowledged.
                self._open.execute("PRAGMA synchronous = FULL")
                self._open.execute("PRAGMA secure_delete = ON").fetchall()
            except BaseException:
                self.close()
                raise
        return self._open


@contextmanager
def _translated() -> Iterator[None]:
    """Translate SQLite's errors; its messages name tables and columns, but no values."""
    try:
        yield
    except (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, OverflowError) as error:
        raise ArchiveRefusedError(type(error).__name__) from None
    except sqlite3.OperationalError as error:
        raise ArchiveUnavailableError(str(error)) from None
    except sqlite3.DatabaseError as error:
        raise ArchiveUnavailableError(f"{type(error).__name__}: {error}") from None
    except OSError as error:
        raise ArchiveUnavailableError(error.strerror or type(error).__name__) from None
