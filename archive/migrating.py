"""Migrate the tables: files with statements, each applied once, in one transaction with its number."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from archive.archive_repository import SchemaError

if TYPE_CHECKING:
    from pathlib import Path

    from archive.database import Database, Session

_TABLE = "CREATE TABLE IF NOT EXISTS archive_migrations (number integer PRIMARY KEY, name text NOT NULL)"
_FILE = re.compile(r"(\d{4})_(\w+)\.up\.sql")


class Migration(NamedTuple):
    """A step from a version of the tables to the next one."""

    number: int
    name: str
    up: Path
    down: Path


def migrations_in(folder: Path) -> list[Migration]:
    """Return the migrations of a folder, in order."""
    found = []
    for up in sorted(folder.glob("*.up.sql")):
        if match := _FILE.fullmatch(up.name):
            down = up.with_name(f"{match[1]}_{match[2]}.down.sql")
            found.append(Migration(int(match[1]), match[2], up, down))
    return found


def migrate(database: Database, target: int | None = None) -> list[str]:
    """Apply the migrations up to `target` that are missing, and take back those above it; None: all.

    Return the names of what was done. Each step is a transaction, in which no other process
    migrates or writes.

    Raises:
        SchemaError: the tables are those of a later version of this program.
        ArchiveUnavailableError: the database is away; the steps that were done stay.
    """
    known = migrations_in(database.migrations)
    target = known[-1].number if target is None else target
    done: list[str] = []
    while True:
        with database.transaction(writing=True) as session:
            step = _step(session, known, target)
        if step is None:
            return done
        done.append(step)


def check(database: Database) -> None:
    """Check that the tables are those of this version.

    Raises:
        SchemaError: they are not.
        ArchiveUnavailableError: the database is away.
    """
    known = migrations_in(database.migrations)
    with database.transaction() as session:
        applied = _applied(session) if session.has_table("archive_migrations") else []
    if applied != [each.number for each in known]:
        _refuse_later(applied, known)
        missing = ", ".join(f"{each.number:04}" for each in known if each.number not in applied)
        raise SchemaError(
            f"the archive's tables lack the migrations {missing}: run `deltaloom archive migrate`"
        )


def _step(session: Session, known: list[Migration], target: int) -> str | None:
    """Do one step; return its name, or None if there is none to do."""
    session.run(_TABLE)
    applied = _applied(session)
    _refuse_later(applied, known)
    for each in known:
        if each.number <= target and each.number not in applied:
            session.run_script(each.up.read_text("utf-8"))
            session.run(
                "INSERT INTO archive_migrations (number, name) VALUES (?, ?)", (each.number, each.name)
            )
            return f"{each.number:04} {each.name}"
    for each in reversed(known):
        if each.number > target and each.number in applied:
            session.run_script(each.down.read_text("utf-8"))
            session.run("DELETE FROM archive_migrations WHERE number = ?", (each.number,))
            return f"{each.number:04} {each.name} taken back"
    return None


def _applied(session: Session) -> list[int]:
    return [number for (number,) in session.rows("SELECT number FROM archive_migrations ORDER BY number")]


def _refuse_later(applied: list[int], known: list[Migration]) -> None:
    if later := set(applied) - {each.number for each in known}:
        numbers = ", ".join(f"{number:04}" for number in sorted(later))
        raise SchemaError(
            f"the archive's tables have the migrations {numbers} of a later version: use that one"
        )
