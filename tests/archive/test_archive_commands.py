"""Test the commands that look into the archive, hold and erase."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from archive.archive_repository import RecordSubject
from tests.archive.made import delivery, text
from tests.service.cli.command import deltaloom, environment

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

    from archive.sql_archive import SqlArchive

MARK = "zqxmark"


@pytest.fixture
def archive(archive: SqlArchive) -> SqlArchive:
    """Return an archive with a few records."""
    archive.insert(
        [
            text(1, tenant="acme", text=f"I cannot help with {MARK}."),
            text(2, tenant="beta", text="Something else\nhelps \x1b[31m"),
            delivery(1),
        ]
    )
    return archive


def run(path: Path, *arguments: str, code: int = 0) -> CompletedProcess[str]:
    """Run `deltaloom archive` on an archive."""
    done = deltaloom("archive", *arguments, env=environment(DELTALOOM_ARCHIVE_URL=f"sqlite:{path}"))
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def lines(done: CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the JSON lines that a command printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_search_shows_texts_and_is_recorded_without_its_words(archive: SqlArchive, path: Path) -> None:
    """Find by words, part and filter; write down who searched with which conditions, and not for what."""
    assert MARK in run(path, "search", MARK.upper(), "help", "--tenant", "acme", "--who", "Ann").stdout
    assert "nothing is found" in run(path, "search", MARK, "--tenant", "beta").stderr
    (found,) = lines(run(path, "search", "--part", "ething el", "--json"))
    assert found["number"] == 2
    assert "\x1b" not in run(path, "search", "something").stdout
    looks = archive.looks()
    assert (looks[-1].who, looks[-1].what, looks[-1].found) == ("Ann", "search --tenant", 1)
    assert MARK not in "".join(look.what for look in looks)


def test_show_finds_a_response(archive: SqlArchive, path: Path) -> None:
    """Show all records of a response; fail for an unknown one."""
    assert [each["family"] for each in lines(run(path, "show", "resp_1", "--json"))] == ["text", "delivery"]
    assert "nothing of resp_9 is archived" in run(path, "show", "resp_9", code=1).stderr
    assert [look.found for look in archive.looks()] == [0, 2]


def test_an_export_goes_on_after_the_last_number(archive: SqlArchive, path: Path) -> None:
    """Export in the order of archiving, and only what came later on request."""
    first = lines(run(path, "export"))
    assert [each["number"] for each in first] == [1, 2, 3]
    archive.insert([text(4, age=86400)])
    (later,) = lines(run(path, "export", "--after", "3", "--since", "2026-11-29"))
    assert later["message"] == json.loads(text(4, age=86400).body)
    assert "no time" in run(path, "export", "--since", "soon", code=2).stderr


def test_erasing_names_what_is_held(archive: SqlArchive, path: Path) -> None:
    """Refuse what is held, erase the rest, and erase all once the hold has ended."""
    assert run(path, "hold", "--response", "resp_1", "--why", "case 7", "--who", "Ann").stdout.startswith(
        "hold 1;"
    )
    assert "case 7" in run(path, "holds").stdout
    (certificate,) = lines(run(path, "erase", "--tenant", "acme", "--archive-only", "--yes", code=1))
    assert certificate["held"] == [{"hold": 1, "who": "Ann", "why": "case 7", "records": 1}]
    assert archive.holds()[0].subject == RecordSubject("response_id", "resp_1")
    run(path, "release", "1")
    assert "there is no hold 1" in run(path, "release", "1", code=1).stderr
    (certificate,) = lines(run(path, "erase", "--tenant", "acme", "--archive-only", "--yes"))
    assert certificate["erased"] == {
        "archive": {"records": 2, "conflicts": 0, "unreadable_entries": 0},
        "redis": None,
    }
    assert "Redis: everything" in {each["place"] for each in certificate["not_reached"]}


def test_after_an_erasure_the_file_has_no_word(
    archive: SqlArchive, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overwrite the erased bytes in the file, in its log and in the index of words."""
    opened = sqlite3.connect

    def careless(*arguments: Any, **options: Any) -> sqlite3.Connection:
        """Open a file as a build of SQLite does that keeps deleted bytes, unlike Debian's."""
        connection: sqlite3.Connection = opened(*arguments, **options)
        connection.execute("PRAGMA secure_delete = OFF").fetchall()
        return connection

    archive.close()
    monkeypatch.setattr(sqlite3, "connect", careless)

    def stored() -> bytes:
        return b"".join(file.read_bytes() for file in path.parent.glob("archive.db*"))

    archive.insert(
        [text(1, tenant="acme", text=f"other {MARK}"), text(5, tenant="acme", text=f"{MARK} again")]
    )
    assert MARK.encode() in stored()
    run(path, "search", MARK)
    archive.close()
    run(path, "erase", "--tenant", "acme", "--archive-only", "--yes")
    assert MARK.encode() not in stored()
    assert b"acme" not in stored()
    assert b"Something else" in stored()


def test_the_question_is_not_part_of_the_certificate(archive: SqlArchive, path: Path) -> None:
    """Ask on stderr, so that `> certificate.json` shows the question and gets JSON alone."""
    done = deltaloom(
        *("archive", "erase", "--tenant", "acme", "--archive-only"),
        env=environment(DELTALOOM_ARCHIVE_URL=f"sqlite:{path}"),
        stdin=b"y\n",
    )
    assert "Erase all of it for good?" in done.stderr
    assert json.loads(done.stdout)["subject"] == {"tenant": "acme"}
    assert archive.counts()["erasures"] == 1


@pytest.mark.parametrize("arguments", [(), ("--tenant", "a", "--response", "b")])
def test_one_subject_is_erased_at_a_time(archive: SqlArchive, path: Path, arguments: tuple[str, ...]) -> None:
    """Refuse an erasure without a subject, which would be that of everything, and one with two."""
    assert "give one of --response" in run(path, "erase", *arguments, "--yes", code=2).stderr
    assert archive.counts()["records"] == 3


def test_commands_make_no_archive(path: Path) -> None:
    """Say that there is none, and do not create an empty file at a mistaken path."""
    assert "there is no archive at" in run(path, "search", "x", code=1).stderr
    assert not path.exists()


def test_migrate_says_what_it_did(path: Path) -> None:
    """Create the tables once, and take them back only when asked twice."""
    assert run(path, "migrate").stdout == "0001 records\n0002 certificates\n"
    assert run(path, "migrate").stdout == "nothing to do\n"
    run(path, "migrate", "--to", "0", code=1)
    taken_back = run(path, "migrate", "--to", "0", "--yes").stdout
    assert taken_back == "0002 certificates taken back\n0001 records taken back\n"
    assert "deltaloom archive migrate" in run(path, "search", "x", code=2).stderr
