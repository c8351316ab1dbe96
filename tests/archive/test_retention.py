"""Test that records go at the end of their time, and no earlier, and stay while they are held."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from archive.archive_repository import Inserted, RecordSubject, Retention
from archive.archive_settings import ArchiveSettings
from archive.database import TablePartition
from archive.migrating import migrate
from archive.retention_rules import LONGEST, retentions_in
from archive.sql_archive import SqlArchive
from archive.sqlite_database import SqliteDatabase
from service.settings import SettingsError
from tests.archive.archivers import archiving, settings_of
from tests.archive.made import NOW, delivery, text
from tests.service.cli.command import deltaloom, environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from archive.database import Database

DAY = 86400.0
YEAR = 365 * DAY


def test_rules_are_written_by_tenant_and_kind() -> None:
    """Read any tenant, names with odd characters, and times of a minute or more."""
    assert retentions_in("*=86400, */reasoning=60,a%2Cb=70,a%2Cb/refusal=1e6,") == [
        Retention(86400),
        Retention(60, kind="reasoning"),
        Retention(70, tenant="a,b"),
        Retention(1e6, kind="refusal", tenant="a,b"),
    ]
    assert retentions_in("") == []


def test_the_longest_retention_can_be_applied(database: Database) -> None:
    """Keep everything by a retention that begins before there were computers."""
    archive = SqlArchive(database, lambda: NOW)
    archive.insert([text(1, age=6 * YEAR)])
    assert archive.retain(retentions_in(f"*={LONGEST}"))["records"] == 0


@pytest.mark.parametrize(
    "text", ["60", "*=59", "=60", "a/=60", "a=b", "a=inf", "a=nan", "a=1e11", "*=60,*=70"]
)
def test_other_rules_are_refused(text: str) -> None:
    """Refuse what would keep or delete other records than meant."""
    with pytest.raises(ValueError, match=r"is not like|one time only"):
        retentions_in(text)
    with pytest.raises(SettingsError, match="ARCHIVE_RETENTION"):
        ArchiveSettings.read(archive_retention=text)


def test_whole_months_are_dropped_but_what_is_held(database: Database) -> None:
    """Drop partitions, with their keys, and go on where a round has ended early; keep a month with a hold."""
    archive = SqlArchive(database, lambda: NOW)
    archive.insert([text(number, age=2 * YEAR, response_id=f"old_{number}") for number in range(3)])
    archive.insert([text(4, age=3 * YEAR, reference="case"), text(5, age=3 * YEAR, response_id="resp_4")])
    archive.insert([text(6, age=3 * YEAR), text(7, age=20 * DAY), text(8, age=4 * YEAR), delivery(8)])
    hold = archive.hold(RecordSubject("reference", "case"), "Ann", "case 7")
    rules = [
        Retention(YEAR),
        Retention(10 * DAY, kind="refusal", tenant="acme"),
        Retention(5 * YEAR, tenant="x"),
    ]
    assert archive.retain(rules)["records"] == 5, "x is kept longer, so no month is dropped as a whole"
    archive.insert([text(9, age=2 * YEAR), text(10, age=2 * YEAR)])
    for number in (9, 10):
        assert archive.of_response(f"resp_{number}")
    assert archive.retain(rules[:2])["records"] == 2
    assert {each.record.id for each in archive.page()} == {"text_4", "text_5", "text_7", "delivery_8"}
    assert archive.held_beyond(rules) == {hold: 1}
    with database.transaction() as session:
        names = {each.name for each in database.partitions(session)}
        assert database.tables(session, "expired_") == []
    assert not any("2024" in name for name in names)
    back = archive.insert([text(9, age=2 * YEAR)]).new
    assert back == bool(names), "keys of a month that was dropped leave no tombstones"
    archive.release(hold.number, "Ann")
    assert archive.retain(rules[:2])["records"] == 2 + back
    assert archive.held_beyond(rules) == {}
    assert {each.record.id for each in archive.page()} == {"text_7", "delivery_8"}


def test_a_round_goes_on_with_what_the_last_one_has_detached(database: Database) -> None:
    """Drop a partition that a process had detached when it was killed."""
    archive = SqlArchive(database, lambda: NOW)
    archive.insert([text(1, age=2 * YEAR), text(2)])
    if not detached_by_a_killed_process(database):
        return
    assert archive.retain([Retention(YEAR)])["records"] == 1
    assert archive.counts()["record_keys"] == 1
    assert archive.insert([text(1, age=2 * YEAR)]) == Inserted(new=1), "its month is made anew"


def test_a_month_that_came_back_is_dropped_too(database: Database) -> None:
    """Drop a month of which a process has left an earlier partition: the name of that is free by then."""
    archive = SqlArchive(database, lambda: NOW)
    archive.insert([text(1, age=2 * YEAR), text(2)])
    detached_by_a_killed_process(database)
    archive.insert([text(3, age=2 * YEAR)])
    assert archive.retain([Retention(YEAR)])["records"] == 2
    assert [each.record.id for each in archive.page()] == ["text_2"]


def test_an_erasure_reaches_a_detached_month(database: Database) -> None:
    """Drop what a round has detached before the rest is erased: no statement finds a subject there."""
    archive = SqlArchive(database, lambda: NOW)
    archive.insert([text(1, age=2 * YEAR, tenant="acme"), text(2, tenant="acme")])
    detached_by_a_killed_process(database)
    archive.erase(RecordSubject("tenant", "acme"), "Cy")
    with database.transaction() as session:
        assert database.tables(session, "expired_") == []
    assert archive.page() == []


def test_a_round_passes_over_what_another_one_has_dropped(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Go on with the next month if another archiver has dropped one since this one has listed them."""
    archive = SqlArchive(database, lambda: NOW)
    archive.insert([text(1, age=3 * YEAR), text(2, age=2 * YEAR), text(3)])
    gone = TablePartition("records_2020_01", NOW - timedelta(days=2 * 365))
    partitions, tables = database.partitions, database.tables
    monkeypatch.setattr(database, "partitions", lambda session: [gone, *partitions(session)])
    monkeypatch.setattr(
        database,
        "tables",
        lambda session, beginning: ["expired_records_2020_01", *tables(session, beginning)],
    )
    assert archive.retain([Retention(YEAR)])["records"] == 2
    assert [each.record.id for each in archive.page()] == ["text_3"]


def detached_by_a_killed_process(database: Database) -> bool:
    """Detach the oldest month, as a killed process did; return False for SQLite, which has none."""
    with database.transaction(writing=True) as session:
        months = [each.name for each in database.partitions(session) if each.until < NOW]
        for name in months[:1]:
            session.run(f"ALTER TABLE records DETACH PARTITION {name}")
            session.run(f"ALTER TABLE {name} RENAME TO expired_{name}")
    return bool(months)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqlArchive]:
    """Yield an archive in a file, with an old record, a held one and a new one."""
    database = SqliteDatabase(tmp_path / "archive.db")
    migrate(database)
    archive = SqlArchive(database)
    old = "2024-01-01T00:00:00+00:00"
    archive.insert(
        [
            text(1, finished_at=old, text="zqxmark"),
            text(2, finished_at=old, reference="case"),
            text(3, finished_at=datetime.fromtimestamp(time.time(), UTC).isoformat()),
        ]
    )
    archive.hold(RecordSubject("reference", "case"), "Ann", "case 7")
    yield archive
    database.close()


def test_the_command_says_who_holds_what(file: SqlArchive, tmp_path: Path) -> None:
    """Delete by the setting; name the hold, with who and why; refuse to run without a rule."""
    url = f"sqlite:{tmp_path / 'archive.db'}"
    done = deltaloom("archive", "retain", env=environment(DELTALOOM_ARCHIVE_URL=url))
    assert (done.returncode, "is not set" in done.stderr) == (1, True)
    env = environment(DELTALOOM_ARCHIVE_URL=url, DELTALOOM_ARCHIVE_RETENTION="*=86400")
    done = deltaloom("archive", "retain", env=env)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["deleted"] == {"records": 1, "conflicts": 0, "unreadable_entries": 0}
    (held,) = said["held"]
    assert (held["hold"], held["who"], held["why"], held["records"]) == (1, "Ann", "case 7", 1)
    assert [each.record.id for each in file.page()] == ["text_2", "text_3"]
    file.close()
    assert b"zqxmark" not in b"".join(each.read_bytes() for each in tmp_path.glob("archive.db*"))


async def test_archivers_delete_by_age(redis_url: str, prefix: str, file: SqlArchive, tmp_path: Path) -> None:
    """Apply the retention at the start and then at regular times, beside the archiving."""
    url = f"sqlite:{tmp_path / 'archive.db'}"
    settings = settings_of(redis_url, prefix, url, archive_retention="*=86400", archive_retention_interval=1)
    async with archiving(settings):
        await wait_until(lambda: len(file.page()) == 2)
        file.insert([text(4, finished_at="2024-01-01T00:00:00+00:00")])
        await wait_until(lambda: len(file.page()) == 2)
