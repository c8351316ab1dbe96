"""Test what every database of the archive promises: the same tests for all of them."""

from __future__ import annotations

import random
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive.archive_repository import (
    ArchiveRepository,
    Filter,
    Inserted,
    RecordSubject,
    Retention,
    SchemaError,
)
from archive.migrating import check, migrate, migrations_in
from archive.record import EntryPlace, unreadable
from archive.sql_archive import SqlArchive
from tests.archive.made import NOW, delivery, text

if TYPE_CHECKING:
    from archive.database import Database

BAD = unreadable(EntryPlace("deltaloom:assembled", "1-0"), [b"__data__", b"{"], "it is not JSON")


@pytest.fixture
def archive(database: Database) -> ArchiveRepository:
    """Return an empty archive, in which it is always noon."""
    return SqlArchive(database, lambda: NOW)


def ids(found: list[Any]) -> list[str]:
    """Return the ids of what was found."""
    return [each.record.id for each in found]


def test_a_record_comes_back_as_it_was(archive: ArchiveRepository) -> None:
    """Return all values and bytes, also those that a database likes least."""
    given = text(1, text="a\0b \u2028 \U0001f600 'x' %s ? \\", tenant="O'Neill \0", model="m", age=0.000001)
    assert archive.insert([given, text(2, text="")]) == Inserted(new=2)
    assert [each.record for each in archive.page()] == [given, text(2, text="")]


def test_the_longest_ids_are_kept(archive: ArchiveRepository) -> None:
    """Find a response by an id as long as the contract allows, which is too long for a usual index."""
    long = "".join(map(chr, random.Random(1).sample(range(0x20000, 0x2A000), 1024)))
    given = text(1, response_id=long, item_id=long, upstream_response_id=long, reference=long[:512])
    assert archive.insert([given]) == Inserted(new=1)
    assert [each.record for each in archive.of_response(long)] == [given]


def test_a_record_is_inserted_once(archive: ArchiveRepository) -> None:
    """Insert a key once, in one batch and in later ones; another prefix is another key."""
    assert archive.insert([text(1), text(2), text(1)]) == Inserted(new=2, repeated=1)
    assert archive.insert([text(2), text(3), text(1, source="other")]) == Inserted(new=2, repeated=1)
    assert ids(archive.page()) == ["text_1", "text_2", "text_3", "text_1"]


def test_other_content_is_kept_beside_the_first(archive: ArchiveRepository) -> None:
    """Keep the first content, and show the other one, once however often it comes."""
    archive.insert([text(1)])
    other = text(1, text="another", age=86400 * 40)
    assert archive.insert([other, text(1)]) == Inserted(repeated=1, conflicts=1)
    assert archive.insert([other]) == Inserted(conflicts=1)
    assert archive.insert([text(2), text(2, text="more")]) == Inserted(new=1, conflicts=1)
    assert [each.record for each in archive.page()] == [text(1), text(2)]
    assert {each.record for each in archive.conflicts()} == {other, text(2, text="more")}


def test_unreadable_entries_are_kept_with_their_reason(archive: ArchiveRepository) -> None:
    """Keep an entry that is no message once, beside the records of its batch."""
    assert archive.insert([text(1)], [BAD]) == Inserted(new=1, unreadable=1)
    archive.insert([], [BAD])
    assert archive.unreadable() == [BAD]


def test_a_response_is_found_by_each_of_its_ids(archive: ArchiveRepository) -> None:
    """Find records by the id of the response, of the item and of the provider."""
    archive.insert(
        [text(1, item_id="msg_1"), delivery(1), text(2, upstream_response_id="chatcmpl-1"), text(3)]
    )
    assert ids(archive.of_response("resp_1")) == ["text_1", "delivery_1"]
    assert ids(archive.of_response("msg_1")) == ["text_1"]
    assert ids(archive.of_response("chatcmpl-1")) == ["text_2"]
    assert archive.of_response("' OR 1 = 1 --") == []


def test_search_by_words_and_by_parts_of_them(archive: ArchiveRepository) -> None:
    """Find texts that have all words, or a string, whatever the case; nothing in a query is an operator."""
    archive.insert(
        [
            text(1, text="I can't help with the Übung, sorry."),
            text(2, text="Sorry: 100% of user_names", provider_explanation="explosives"),
            text(3, text="sorry OR not", kind="reasoning"),
        ]
    )
    assert ids(archive.search("SORRY")) == ["text_3", "text_2", "text_1"]
    assert ids(archive.search("sorry", limit=1, before=3)) == ["text_2"]
    assert ids(archive.search("übung help")) == ["text_1"]
    assert ids(archive.search("help explosives")) == []
    assert ids(archive.search("sorry OR")) == ["text_3"]
    assert ids(archive.search("sorry", where=Filter(kind="reasoning"))) == ["text_3"]
    assert ids(archive.search(part="XPLOSI")) == ["text_2"]
    assert ids(archive.search(part="0% of")) == ["text_2"]
    assert ids(archive.search(part="user_n")) == ["text_2"]
    assert ids(archive.search(part="userxn")) == []
    assert len(archive.search()) == 3
    for odd in ("'", '"', "a & ! (", "*", "\\", "NEAR(", "\0", "-x", "words:sorry", "%"):
        archive.search(odd)
        archive.search(part=odd)


def test_a_search_goes_on_beyond_the_latest_records(
    archive: ArchiveRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Find the same texts, each once and the latest first, however many are looked at one by one."""
    archive.insert([text(number, text="odd" if number % 2 else "even") for number in range(1, 13)])
    odd = [f"text_{number}" for number in range(11, 0, -2)]
    for walked in (1, 2, 5, 11, 12, 13, 1000):
        monkeypatch.setattr("archive.sql_archive._WALKED", walked)
        for part in ("", "od"):
            words = "" if part else "odd"
            for limit in range(1, 8):
                assert ids(archive.search(words, part, limit=limit)) == odd[:limit]
                assert ids(archive.search(words, part, before=6, limit=limit)) == odd[3:][:limit]
        assert len(archive.search()) == 12


def test_the_largest_text_is_kept_whole(archive: ArchiveRepository) -> None:
    """Take a text of which PostgreSQL could not index all words."""
    words = " ".join(f"w{number:07}" for number in range(1_000_000))
    assert archive.insert([text(1, text=words), text(2, text="x" * 3_000_000)]) == Inserted(new=2)
    assert archive.of_response("resp_1")[0].record.body == text(1, text=words).body
    assert ids(archive.search("w0000042")) == ["text_1"]


def test_pages_go_on_where_the_last_one_ended(archive: ArchiveRepository) -> None:
    """Page by the number of a record, so that an export misses none that comes later with an earlier time."""
    archive.insert([text(number, age=-number, tenant="acme" if number % 2 else None) for number in range(10)])
    first = archive.page(limit=4)
    archive.insert([text(11, age=86400 * 90)])
    rest = archive.page(after=first[-1].number or 0)
    assert ids(first + rest) == [*(f"text_{number}" for number in range(10)), "text_11"]
    some = Filter(tenant="acme", since=NOW + timedelta(seconds=3), until=NOW + timedelta(seconds=7))
    assert ids(archive.page(some)) == ["text_3", "text_5"]


def test_an_erasure_takes_all_of_a_subject_but_what_is_held(archive: ArchiveRepository) -> None:
    """Delete records, conflicts and deliveries; name the holds of the records that stay."""
    archive.insert(
        [
            text(1, tenant="acme"),
            delivery(1),
            text(2, tenant="acme", reference="r", safety_identifier="u"),
            delivery(2),
            text(3),
            delivery(3),
        ]
    )
    archive.insert(
        [text(1, tenant="acme", text="other"), text(2, tenant="acme", reference="r", text="other")]
    )
    first = archive.hold(RecordSubject("reference", "r"), "Ann", "case 7")
    archive.hold(RecordSubject("safety_identifier", "u"), "Ben", "case 8")
    erasure = archive.erase(RecordSubject("tenant", "acme"), "Cy")
    assert erasure.erased == {"records": 2, "conflicts": 1, "unreadable_entries": 0}
    assert erasure.held == {first: 1}
    assert ids(archive.page()) == ["text_2", "delivery_2", "text_3", "delivery_3"]
    assert [each.record.id for each in archive.conflicts()] == ["text_2"]


def test_an_erased_record_does_not_come_back(archive: ArchiveRepository) -> None:
    """Take an entry that comes again after its record was erased as a repeat, whatever its content."""
    archive.insert([text(1)], [unreadable(EntryPlace("s", "2-0"), [b"response_id", b"resp_1"], "bad"), BAD])
    erased = archive.erase(RecordSubject("response_id", "resp_1"), "Cy").erased
    assert erased == {"records": 1, "conflicts": 0, "unreadable_entries": 1}
    assert archive.insert([text(1), text(1, text="other")]) == Inserted(repeated=2)
    assert archive.page() == []
    assert archive.unreadable() == [BAD]


def test_a_hold_ends_when_it_is_released(archive: ArchiveRepository) -> None:
    """Keep what is held, by whoever; delete it after the last hold was released."""
    archive.insert([text(1, safety_identifier="user-1")])
    hold = archive.hold(RecordSubject("safety_identifier", "user-1"), "Ann", "case 7")
    assert archive.holds() == [hold]
    assert archive.erase(RecordSubject("response_id", "resp_1"), "Cy").held == {hold: 1}
    assert archive.retain([Retention(0)])["records"] == 0
    assert archive.release(hold.number, "Ann")
    assert not archive.release(hold.number, "Ann")
    assert archive.holds() == []
    assert archive.erase(RecordSubject("response_id", "resp_1"), "Cy").erased["records"] == 1


@pytest.mark.parametrize(
    "subject",
    [RecordSubject("text", "x"), RecordSubject("1 = 1 OR tenant", "x"), RecordSubject("tenant", "")],
)
def test_only_known_subjects_are_erased(archive: ArchiveRepository, subject: RecordSubject) -> None:
    """Refuse names that are no column for it, since they become a part of the statement."""
    with pytest.raises(ValueError, match="records are found by"):
        archive.erase(subject, "Cy")
    with pytest.raises(ValueError, match="records are found by"):
        archive.hold(subject, "Cy", "why")


def test_the_most_special_retention_counts(archive: ArchiveRepository) -> None:
    """Delete by kind and tenant, then tenant, then kind, then all: the first rule that fits decides alone."""
    archive.insert(
        [
            text(1, age=50, kind="reasoning", tenant="acme"),
            text(2, age=50, kind="reasoning", tenant="beta"),
            text(3, age=50, tenant="acme"),
            text(4, age=50),
            text(5, age=150, kind="reasoning", tenant="acme"),
            text(6, age=150, tenant="acme"),
            text(7, age=150),
            text(8, age=5),
        ],
        [BAD],
    )
    rules = [
        Retention(10),
        Retention(20, kind="reasoning"),
        Retention(100, tenant="acme"),
        Retention(1000, kind="reasoning", tenant="acme"),
    ]
    assert archive.retain(rules)["records"] == 4
    assert ids(archive.page()) == ["text_1", "text_3", "text_5", "text_8"]
    assert archive.retain(rules) == {"records": 0, "conflicts": 0, "unreadable_entries": 0}


def test_keys_of_records_that_are_gone_are_forgotten_at_last(database: Database) -> None:
    """Keep a tombstone for long enough, and not for ever."""
    now = [NOW]
    archive = SqlArchive(database, lambda: now[0])
    archive.insert([text(1, age=10)])
    assert archive.retain([Retention(5)])["records"] == 1
    assert archive.counts()["record_keys"] == 1
    now[0] += timedelta(days=401)
    archive.retain([Retention(5)])
    assert archive.counts()["record_keys"] == 0


def test_who_looked_is_written_down(archive: ArchiveRepository) -> None:
    """Return the latest looks first."""
    archive.add_look("Ann", "show resp_1", 2)
    archive.add_look("Ben", "search", 0)
    assert [(look.who, look.what, look.found) for look in archive.looks()] == [
        ("Ben", "search", 0),
        ("Ann", "show resp_1", 2),
    ]
    assert archive.looks(1)[0].at == NOW


def test_tables_come_and_go(empty_database: Database) -> None:
    """Migrate up, down and up again; refuse tables that are older or newer than the program."""
    known = migrations_in(empty_database.migrations)
    assert [each.number for each in known] == list(range(1, len(known) + 1))
    with pytest.raises(SchemaError, match="run `deltaloom archive migrate`"):
        check(empty_database)
    assert migrate(empty_database) == [f"{each.number:04} {each.name}" for each in known]
    check(empty_database)
    SqlArchive(empty_database).insert([text(1)])
    for target in reversed(range(len(known))):
        assert len(migrate(empty_database, target)) == 1
    with empty_database.transaction() as session:
        assert not session.has_table("records")
    assert len(migrate(empty_database)) == len(known)
    assert migrate(empty_database) == []
    assert SqlArchive(empty_database).counts()["records"] == 0
    with empty_database.transaction(writing=True) as session:
        session.run("INSERT INTO archive_migrations (number, name) VALUES (999, 'later')")
    for refused in (check, migrate):
        with pytest.raises(SchemaError, match="0999 of a later version"):
            refused(empty_database)


def test_a_failed_migration_leaves_nothing(empty_database: Database, tmp_path: Any) -> None:
    """Apply a migration as a whole or not at all."""
    (tmp_path / "0001_bad.up.sql").write_text(
        "CREATE TABLE half (number integer);\nCREATE TABLE half (x integer);\n"
    )
    empty_database.migrations = tmp_path
    with pytest.raises(Exception, match=r"half|Duplicate"):
        migrate(empty_database)
    with empty_database.transaction() as session:
        assert not session.has_table("half")


Batch = list[tuple[int, str]]


class Model:
    """The archive, kept in memory: the first content of each key, and the others."""

    def __init__(self) -> None:
        self.first: dict[int, str | None] = {}
        self.others: set[tuple[int, str]] = set()
        self.order: list[int] = []

    def insert(self, batch: Batch) -> Inserted:
        """Do what `ArchiveRepository.insert` promises."""
        new = conflicts = 0
        for number, words in batch:
            if number not in self.first:
                self.first[number] = words
                self.order.append(number)
                new += 1
            elif self.first[number] not in {None, words}:
                self.others.add((number, words))
                conflicts += 1
        return Inserted(new, len(batch) - new - conflicts, conflicts)

    def erase(self, number: int) -> None:
        """Do what `ArchiveRepository.erase` promises."""
        if self.first.get(number) is not None:
            self.first[number] = None
            self.order.remove(number)
        self.others = {each for each in self.others if each[0] != number}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.integers(0, 6)
        | st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["red", "blue", "green"])), max_size=12),
        max_size=6,
    )
)
def test_any_batches_give_what_the_model_gives(database: Database, steps: list[int | Batch]) -> None:
    """Insert random batches with repeats and conflicts, and erase between them: all agrees with the model."""
    run = uuid.uuid4().hex
    archive, model = SqlArchive(database, lambda: NOW), Model()
    for step in steps:
        if isinstance(step, int):
            archive.erase(RecordSubject("response_id", f"{run}_{step}"), "Cy")
            model.erase(step)
        else:
            batch = [
                text(number, source=run, response_id=f"{run}_{number}", tenant=run, text=words)
                for number, words in step
            ]
            assert archive.insert(batch) == model.insert(step)
    mine = Filter(tenant=run)
    assert ids(archive.page(mine)) == [f"text_{number}" for number in model.order]
    for color in ("red", "blue", "green"):
        expected = [f"text_{number}" for number in reversed(model.order) if model.first[number] == color]
        assert ids(archive.search(color, where=mine)) == expected
    assert {
        (each.record.id, each.record.words) for each in archive.conflicts(10_000) if each.record.source == run
    } == {(f"text_{number}", words) for number, words in model.others}


def test_times_are_exact(archive: ArchiveRepository) -> None:
    """Keep the microseconds of a time."""
    at = datetime.fromisoformat("2026-11-30T11:59:59.000001+00:00")
    archive.insert([text(1, finished_at=at.isoformat())])
    assert archive.page()[0].record.at == at
    assert ids(archive.page(Filter(until=at))) == []
    assert ids(archive.page(Filter(since=at))) == ["text_1"]
