"""Test that a database's URL that cannot be used is refused in a line, without its secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from archive.archive_url import database_of
from archive.postgres_database import PostgresDatabase
from tests.archive.archivers import settings_of
from tests.service.cli.command import deltaloom, environment

if TYPE_CHECKING:
    from pathlib import Path

MARK = "zqxmark"
MISUSED = 2


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("foo", "postgresql://user@host/database, or sqlite: and a path"),
        (f"mysql://u:{MARK}@host/db", "postgresql://user@host/database, or sqlite: and a path"),
        ("sqlite:", "postgresql://user@host/database, or sqlite: and a path"),
        (f"postgresql://u:{MARK}/b@host/db", "write / as %2F"),
        (f"postgresql://u:1/{MARK}@host/db", "write / as %2F"),
        (f"postgresql://u:a@{MARK}@host/db", "@ as %40"),
        (f"postgresql://u:{MARK}@ho st/db", "a space as %20"),
        (f"postgresql://u:{MARK}%zz@host/db", "% as %25"),
        (f"postgresql://u:{MARK}@host:no/db", "host, port or database"),
        (f"postgresql://u:{MARK}@host/db?nonsense=1", "check the names after its ?"),
        (f"postgresql://u:{MARK}@[::1/db", "brackets of an IPv6 address"),
        (f"postgresql://u:{MARK}%F1@host/db", "its %-codes are UTF-8"),
        ("sqlite:{folder}/missing/archive.db", "there is no folder {folder}/missing"),
        ("sqlite:{folder}", "it is no file"),
        ("sqlite:{folder}/notes.txt", "it is no database of SQLite"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(tmp_path: Path, url: str, said: str) -> None:
    """End with the exit code of settings, and one line with the setting and the remedy."""
    (tmp_path / "notes.txt").write_text("These are notes, and no database.")
    env = environment(DELTALOOM_ARCHIVE_URL=url.replace("{folder}", str(tmp_path)))
    done = deltaloom("archive", "migrate", env=env)
    assert done.returncode == MISUSED, done
    assert "DELTALOOM_ARCHIVE_URL=" in done.stderr
    assert said.replace("{folder}", str(tmp_path)) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert MARK not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("missing.db", 1, "there is no archive at"),
        ("a" * 300, MISUSED, "it cannot be used (File name too long)"),
    ],
)
def test_a_file_that_cannot_be_looked_into_is_named(tmp_path: Path, name: str, code: int, said: str) -> None:
    """Say in a line why a command finds no archive, also if the system refuses to look for the file."""
    done = deltaloom("archive", "holds", env=environment(DELTALOOM_ARCHIVE_URL=f"sqlite:{tmp_path / name}"))
    assert (done.returncode, said in done.stderr, len(done.stderr.splitlines())) == (code, True, 1), done


@pytest.mark.parametrize("rest", ["u:p%2Fq@host/db", "/db", "u:a#b?c@h1:5432,[::1]:5433/db?sslmode=require"])
def test_a_url_that_the_library_reads_is_accepted(rest: str) -> None:
    """Accept encoded passwords, sockets, several hosts and options."""
    assert isinstance(
        database_of(settings_of("redis://localhost", "p", f"postgresql://{rest}")), PostgresDatabase
    )
