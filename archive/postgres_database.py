"""The archive's database in PostgreSQL 15 or later, with psycopg of the extra `archive`."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg

from archive.archive_repository import ArchiveRefusedError, ArchiveUnavailableError, Remainder
from archive.database import TablePartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from archive.database import Session
    from archive.record import Record

WRITER_LOCK = 0x64656C7461  # "delta"
"""Number of the advisory lock that whoever writes or migrates holds."""

_DECEMBER = 12
_TYPES = {"at": "timestamptz", "body": "bytea", "digest": "bytea"}
"""Types of those columns of records that are not text."""

_TUPLE_TARGET = 4080
"""Bytes of a row above which PostgreSQL compresses it. A usual text with its index exceeds the default of
about 2,000; it takes long to compress, and gets hardly smaller."""

_MONTH = re.compile(r"records_(\d{4})_(\d{2})")
"""Name of a partition."""

_SCRUBBED = ("records", "conflicts", "unreadable_entries", "holds")
"""Tables with values of those who are erased."""

_LEFT = """
    SELECT relname, n_dead_tup FROM pg_stat_all_tables
    WHERE n_dead_tup > 0 AND relid IN (
        SELECT tree.relid FROM unnest(%s::text[]) AS name, pg_partition_tree(to_regclass(name)) AS tree
        UNION SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS name)
    ORDER BY relname
"""
"""Deleted rows that VACUUM left, by table; partitions count for themselves."""

_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "deltaloom archive",
}


class PostgresSession:
    """An open transaction."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a statement; return its rows."""
        return self._connection.execute(_with_placeholders(statement), values).fetchall()

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; return the number of rows that it changed."""
        return self._connection.execute(_with_placeholders(statement), values).rowcount

    def add_keys(self, keys: Sequence[tuple[str, str, bytes]]) -> set[tuple[str, str]]:
        """Insert new keys; see `Session.add_keys`. All are in one statement, which is planned once."""
        statement = (
            "INSERT INTO record_keys (source, id, digest) "
            "SELECT * FROM unnest(%b::text[], %b::text[], %b::bytea[]) "
            "ON CONFLICT DO NOTHING RETURNING source, id"
        )
        columns = [[key[place] for key in keys] for place in range(3)]
        return set(self._connection.execute(statement, columns, binary=True)) if keys else set()

    def add_records(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Copy records; see `Session.add_records`. COPY writes a page at once, and parses no statement."""
        if not rows:
            return
        statement = f"COPY records ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor().copy(statement) as copy:
            copy.set_types([_TYPES.get(column, "text") for column in columns])
            for row in rows:
                copy.write_row(row)

    def has_table(self, name: str) -> bool:
        """Return whether there is a table with this name in the search path."""
        return bool(self.rows("SELECT 1 WHERE to_regclass(?) IS NOT NULL", (name,)))

    def run_script(self, statements: str) -> None:
        """Run several statements without values."""
        self._connection.execute(statements)


class PostgresDatabase:
    """A database of a server. Any thread may use it, one at a time.

    Args:
        url: its URL, `postgresql://…`.
    """

    migrations = Path(__file__).parent / "migrations" / "postgresql"

    def __init__(self, url: str) -> None:
        self._url = url
        self._open: psycopg.Connection[Any] | None = None

    @staticmethod
    def understands(url: str) -> bool:
        """Return whether the library can read a URL; its message, which has parts of it, is left out."""
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except (psycopg.Error, UnicodeDecodeError):
            return False
        return True

    @contextmanager
    def transaction(self, *, writing: bool = False) -> Iterator[PostgresSession]:
        """Open a transaction; see `Database.transaction`."""
        try:
            with _translated():
                connection = self._connection()
                with connection.transaction():
                    session = PostgresSession(connection)
                    if writing:
                        # It is released after the commit is visible, so an export by number misses nothing.
                        session.rows("SELECT pg_advisory_xact_lock(?)", (WRITER_LOCK,))
                    yield session
        except ArchiveUnavailableError:
            self.close()
            raise

    def prepare(self, session: Session, records: Iterable[Record]) -> None:
        """Create the partitions of months that records need."""
        for year, month in sorted({(each.at.year, each.at.month) for each in records}):
            name = f"records_{year}_{month:02}"
            if session.has_table(name):
                continue
            since = datetime(year, month, 1, tzinfo=UTC)
            until = _end_of(year, month)
            session.run_script(
                f"CREATE TABLE {name} PARTITION OF records "
                f"FOR VALUES FROM ('{since.isoformat()}') TO ('{until.isoformat()}') "
                f"WITH (toast_tuple_target = {_TUPLE_TARGET})"
            )

    def partitions(self, session: Session) -> list[TablePartition]:
        """Return the months."""
        names = session.rows(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = to_regclass('records') ORDER BY relname"
        )
        found = [match for (name,) in names if (match := _MONTH.fullmatch(name))]
        return [TablePartition(match[0], _end_of(int(match[1]), int(match[2]))) for match in found]

    def tables(self, session: Session, beginning: str) -> list[str]:
        """Return the tables whose names begin with `beginning`."""
        statement = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() "
        statement += "AND starts_with(tablename, ?)"
        return [name for (name,) in session.rows(statement, (beginning,))]

    def with_words(self, words: str, after: int) -> tuple[str, list[Any]]:  # noqa: ARG002 - for SQLite
        """Return a condition for records with all these words."""
        return "lexemes @@ plainto_tsquery('simple', ?)", [words]

    def with_part(self, part: str) -> tuple[str, list[Any]]:
        """Return a condition for records with this string; from three characters on, the index has it."""
        escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return "words ILIKE ?", [f"%{escaped}%"]

    def of_time(self, at: datetime) -> datetime:
        """Return the time itself."""
        return at

    def to_time(self, stored: Any) -> datetime:
        """Return the time in UTC."""
        return cast("datetime", stored).astimezone(UTC)

    def scrub(self) -> list[Remainder]:
        """Remove deleted rows from tables and indexes. The write-ahead log and backups keep their bytes.

        VACUUM leaves rows that an older transaction may see. It tells the statistics how many, which any user
        may read, unlike the transactions of others.
        """
        with _translated():
            connection = self._connection()
            # Deletes that are counted after VACUUM would be taken for rows that it has left.
            connection.execute("SELECT pg_stat_force_next_flush()")
            for table in _SCRUBBED:
                connection.execute(f"VACUUM {table}")
            left = connection.execute(_LEFT, [list(_SCRUBBED), list(_SCRUBBED)]).fetchall()
            ((counted,),) = connection.execute("SHOW track_counts").fetchall()
        if counted != "on":
            unknown = "until you erase again with track_counts on: whether VACUUM left some is unknown"
            return [Remainder("PostgreSQL: deleted rows", unknown)]
        until = "until you erase again: an older transaction, prepared transaction, slot or replica sees them"
        return [Remainder(f"PostgreSQL: {count} deleted rows of {name}", until) for name, count in left]

    def tidy(self) -> None:
        """Do nothing, since autovacuum does it."""

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connection(self) -> psycopg.Connection[Any]:
        if self._open is None or self._open.closed:
            self._open = _connect(self._url)
        return self._open


def _end_of(year: int, month: int) -> datetime:
    return datetime(year + month // _DECEMBER, month % _DECEMBER + 1, 1, tzinfo=UTC)


def _connect(url: str) -> psycopg.Connection[Any]:
    """Return a new connection.

    Raises:
        ArchiveUnavailableError: the server does not answer, or refuses the user; without the password.
    """
    try:
        connection = psycopg.connect(url, autocommit=True, **cast("Any", _OPTIONS))
    except psycopg.Error as error:
        password = psycopg.conninfo.conninfo_to_dict(url).get("password")
        reason = " ".join(str(error).split())
        raise ArchiveUnavailableError(
            _name(error) if password and str(password) in reason else reason
        ) from None
    # Memory for the index of a batch, and for the places of the texts that have a word.
    connection.execute("SET work_mem = '64MB'")
    # A process that is stopped amid a transaction must not keep the others from writing.
    connection.execute("SET idle_in_transaction_session_timeout = '60s'")
    return connection


def _with_placeholders(statement: str) -> LiteralString:
    """Return a statement, which has no strings with `?` or `%`, with the placeholders of psycopg."""
    return statement.replace("?", "%s")


@contextmanager
def _translated() -> Iterator[None]:
    """Translate errors of psycopg. A server's message may repeat values, so only its code is kept."""
    try:
        yield
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise ArchiveRefusedError(_name(error)) from None
    except psycopg.errors.ProgramLimitExceeded as error:
        raise ArchiveRefusedError(_name(error)) from None
    except psycopg.Error as error:
        raise ArchiveUnavailableError(_name(error)) from None


def _name(error: psycopg.Error) -> str:
    return f"{type(error).__name__} {error.sqlstate}" if error.sqlstate else type(error).__name__
