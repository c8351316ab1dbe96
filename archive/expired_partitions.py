"""Drop partitions of which all records are old: faster than to delete each record from the indexes.

A partition is detached first, so that nobody sees half of it; then its keys go, some at a time, so that the
archiver goes on; then the table. If the process ends in between, the next round or erasure goes on with the
table. Several processes may do all this at once: each step looks whether another one has done it.
The keys leave no tombstones: a record that came again would be as old, and go with the next round.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from archive.archive_repository import Retention
    from archive.database import Database

_DETACHED: Final = "expired_"
"""Beginning of the name of a detached partition."""

_KEYS_AT_ONCE: Final = 5000


def longest_of(rules: Sequence[Retention]) -> timedelta | None:
    """Return the time after which no rule keeps any record; None if some records are kept for ever."""
    if not any(rule.kind is None and rule.tenant is None for rule in rules):
        return None
    return timedelta(seconds=max(rule.seconds for rule in rules))


def drop_partitions(database: Database, before: datetime, held: str) -> int:
    """Drop the partitions of which all records are from before a time, and none is held.

    Args:
        database: the database.
        before: the time.
        held: condition for rows of `records` that a hold keeps.

    Returns:
        The number of records that were dropped.
    """
    dropped = drop_detached(database)
    with database.transaction() as session:
        old = [each.name for each in database.partitions(session) if each.until <= before]
    for name in old:
        with database.transaction(writing=True) as session:
            if not session.has_table(name):
                continue
            if session.rows(f"SELECT 1 FROM {name} AS records WHERE {held} LIMIT 1"):  # noqa: S608
                continue
            # While DETACH waits for a long search, later searches wait for DETACH.
            session.run("SET LOCAL lock_timeout = '5s'")
            session.run(f"ALTER TABLE records DETACH PARTITION {name}")
            session.run(f"ALTER TABLE {name} RENAME TO {_DETACHED}{name}")
        dropped += _drop(database, f"{_DETACHED}{name}")
    return dropped


def drop_detached(database: Database) -> int:
    """Drop the partitions that a round has detached and not dropped; return the number of their records."""
    with database.transaction() as session:
        detached = database.tables(session, _DETACHED)
    return sum(_drop(database, name) for name in detached)


def _drop(database: Database, table: str) -> int:
    """Delete the keys of a detached partition, then its table; return the number of its records."""
    dropped, after = 0, 0
    page = f"SELECT number, source, id FROM {table} WHERE number > ? ORDER BY number LIMIT {_KEYS_AT_ONCE}"  # noqa: S608
    while True:
        with database.transaction(writing=True) as session:
            if not session.has_table(table):
                return dropped
            ((count, last),) = session.rows(
                f"WITH page AS ({page}), gone AS (DELETE FROM record_keys USING page "  # noqa: S608
                "WHERE record_keys.source = page.source AND record_keys.id = page.id) "
                "SELECT count(*), max(number) FROM page",
                (after,),
            )
            if not count:
                session.run(f"DROP TABLE {table}")
                return dropped
        dropped, after = dropped + count, last
