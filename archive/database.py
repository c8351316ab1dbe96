"""The interface of a database: transactions, and the statements that differ between PostgreSQL and SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from archive.archive_repository import Remainder
    from archive.record import Record


class Session(Protocol):
    """An open transaction."""

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a statement with a `?` for each value; return its rows."""
        ...

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run a statement with a `?` for each value; return the number of rows that it changed."""
        ...

    def add_keys(self, keys: Sequence[tuple[str, str, bytes]]) -> set[tuple[str, str]]:
        """Insert keys, `(source, id, digest)`, that are not there yet; return `(source, id)` of these."""
        ...

    def add_records(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert records, in this order."""
        ...

    def has_table(self, name: str) -> bool:
        """Return whether there is a table with this name."""
        ...

    def run_script(self, statements: str) -> None:
        """Run several statements without values."""
        ...


class TablePartition(NamedTuple):
    """A table with the records of a span of time."""

    name: str
    until: datetime
    """End of the span; its records are from before."""


class Database(Protocol):
    """A database with one connection, which is opened again after it was lost.

    All methods raise `ArchiveUnavailableError`, and `ArchiveRefusedError` for values that it does not accept.
    """

    migrations: Path
    """Folder with its migrations."""

    def transaction(self, *, writing: bool = False) -> AbstractContextManager[Session]:
        """Open a transaction, commit it at the end of the block, and roll it back after an error.

        If it writes, it waits until no other one does: so records get their numbers in the order of commits.
        """
        ...

    def prepare(self, session: Session, records: Iterable[Record]) -> None:
        """Create the partitions that records need."""
        ...

    def partitions(self, session: Session) -> list[TablePartition]:
        """Return the partitions of the records; none if the database has no partitions."""
        ...

    def tables(self, session: Session, beginning: str) -> list[str]:
        """Return the tables whose names begin with `beginning`."""
        ...

    def with_words(self, words: str, after: int) -> tuple[str, list[Any]]:
        """Return a condition, and its values, for records with all these words and numbers above `after`."""
        ...

    def with_part(self, part: str) -> tuple[str, list[Any]]:
        """Return a condition, and its values, for records with this string."""
        ...

    def of_time(self, at: datetime) -> Any:
        """Return the value that is stored for a time."""
        ...

    def to_time(self, stored: Any) -> datetime:
        """Return the time that was stored."""
        ...

    def scrub(self) -> list[Remainder]:
        """Remove the bytes of deleted rows from its files; return those that others keep it from removing."""
        ...

    def tidy(self) -> None:
        """Remove the words of rows that were deleted by age, if the database does not do so by itself."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
