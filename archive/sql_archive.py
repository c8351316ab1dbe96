"""The archive in a database: the statements that PostgreSQL and SQLite share."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from archive.archive_repository import (
    ALL,
    SUBJECTS,
    Archived,
    ArchiveLook,
    ArchiveRefusedError,
    ArchiveUnavailableError,
    Conflict,
    Erasure,
    Filter,
    Hold,
    Inserted,
    RecordSubject,
    Remainder,
    Retention,
)
from archive.expired_partitions import drop_detached, drop_partitions, longest_of
from archive.record import EntryPlace, Record, UnreadableEntry, storable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from archive.database import Database, Session

_COLUMNS: Final = ", ".join(Record._fields)
_AT: Final = Record._fields.index("at")
_FILTERED: Final = tuple(name for name in Filter._fields if name not in {"since", "until"})
_ROWS_AT_ONCE: Final = 100
"""Rows of one statement: databases limit its values, and prepare a statement of a usual length."""

_WALKED: Final = 1000
"""Latest records that a search looks at one by one. A common word is in enough of them, so its other places,
which may be most of the archive, are not collected and sorted."""

_WALKS: Final = 3
"""Maximum times that a search looks at the next records in this way."""

_DELETED_AT_ONCE: Final = 1000
"""Records that one transaction deletes because of their age."""

_RESPONSES: Final = "SELECT response_id FROM records WHERE {name} = ? AND response_id IS NOT NULL"
"""Statement for the responses of a subject."""

_TABLES: Final = (
    "records",
    "record_keys",
    "conflicts",
    "unreadable_entries",
    "holds",
    "erasures",
    "certificates",
    "looks",
)
_GONE_KEPT: Final = timedelta(days=400)
"""Time for which the key of a deleted record is kept, so that its entry is not taken if it comes again."""

_HOLDS: Final = " OR ".join(
    f"(holds.name = '{name}' AND holds.value = {{table}}.{name})" for name in SUBJECTS
)
"""Condition for a hold and a row of `{table}` that it is about."""

_HELD: Final = f"EXISTS (SELECT 1 FROM holds WHERE holds.released_at IS NULL AND ({_HOLDS}))"  # noqa: S608
"""Condition for rows of `{table}` that a hold keeps."""

_OWN_HELD: Final = (
    "EXISTS (SELECT 1 FROM records AS own "  # noqa: S608
    f"WHERE own.response_id = {{table}}.response_id AND {_HELD.format(table='own')})"
)
"""Condition for rows of `{table}` of whose response a hold keeps a record; a delivery has no tenant."""

_HELD_RECORD: Final = f"({_HELD} OR {_OWN_HELD})".format(table="records")
_HELD_CONFLICT: Final = f"({_HELD} OR {_OWN_HELD})".format(table="conflicts")
_HELD_UNREADABLE: Final = (
    "(EXISTS (SELECT 1 FROM holds WHERE holds.released_at IS NULL AND holds.name = 'response_id' "  # noqa: S608
    f"AND holds.value = unreadable_entries.response_id) OR {_OWN_HELD.format(table='unreadable_entries')})"
)
_HOLDS_RECORD: Final = _HOLDS.format(table="records")


class SqlArchive:
    """Implementation of `ArchiveRepository`.

    Args:
        database: the database; its tables are those of the latest migration.
        clock: returns the present time.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock

    # -------------------------------------------------------------------------------------------- writing

    def insert(self, records: Sequence[Record], unreadable: Sequence[UnreadableEntry] = ()) -> Inserted:
        """Insert each record once; see `ArchiveRepository.insert`."""
        first, others = _first_of_each_key(records)
        with self._database.transaction(writing=True) as session:
            new = session.add_keys([(each.source, each.id, each.digest) for each in first.values()])
            inserted = [record for key, record in first.items() if key in new]
            self._database.prepare(session, inserted)
            session.add_records(Record._fields, [self._row_of(each) for each in inserted])
            others += [record for key, record in first.items() if key not in new]
            conflicts = self._add_conflicts(session, others)
            bad = self._add_unreadable(session, unreadable)
        return Inserted(len(inserted), len(others) - conflicts, conflicts, bad)

    def _add_conflicts(self, session: Session, records: Sequence[Record]) -> int:
        """Keep the records whose key has another content; return their number."""
        digests: dict[tuple[str, str], bytes | None] = {}
        for some in _slices(records):
            keys = sorted({each.key for each in some})
            for source, message_id, digest in session.rows(
                f"SELECT source, id, digest FROM record_keys WHERE {_any_of(keys)}",  # noqa: S608
                _flat(keys),
            ):
                digests[source, message_id] = digest
        other = [each for each in records if digests[each.key] not in {None, each.digest}]
        seen_at = self._now()
        for some in _slices(other):
            rows = [(*self._row_of(each), seen_at) for each in some]
            statement = f"INSERT INTO conflicts ({_COLUMNS}, seen_at) VALUES {_marks(rows)} "  # noqa: S608
            session.run(f"{statement} ON CONFLICT DO NOTHING", _flat(rows))
        return len(other)

    def _add_unreadable(self, session: Session, entries: Sequence[UnreadableEntry]) -> int:
        """Keep unreadable entries; return their number."""
        at = self._now()
        for each in entries:
            values = (
                storable(each.origin.stream),
                each.origin.entry_id,
                hashlib.sha256(each.body).digest(),
                storable(each.reason),
                each.response_id,
                each.body,
                at,
            )
            statement = (
                "INSERT INTO unreadable_entries (stream, entry_id, digest, reason, response_id, body, at)"
            )
            session.run(f"{statement} VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values)
        return len(entries)

    # -------------------------------------------------------------------------------------------- reading

    def of_response(self, response_id: str, limit: int = 1000) -> list[Archived]:
        """Return the records of a response; see `ArchiveRepository.of_response`."""
        given = storable(response_id)
        condition = "(response_id = ? OR upstream_response_id = ? OR item_id = ?)"
        return self._select([(condition, [given] * 3)], "number", limit)

    def search(
        self,
        words: str = "",
        part: str = "",
        where: Filter = ALL,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Archived]:
        """Return the latest records with these words; see `ArchiveRepository.search`."""
        given = list(self._conditions(where))
        if part:
            given.append(self._database.with_part(storable(part)))

        def conditions(after: int) -> list[tuple[str, list[Any]]]:
            with_words = [self._database.with_words(storable(words), after)] if words.strip() else []
            return [("number > ?", [after]), ("number < ?", [end]), *given, *with_words]

        end = self._end() if before is None else before
        found: list[Archived] = []
        walked = _WALKED
        for _ in range(_WALKS):
            first = end - 1 - walked
            some = self._select(conditions(first), "number DESC", limit - len(found), walked=walked)
            found += some
            if len(found) == limit or first < 1:
                return found
            end = first + 1
            if len(some) * 300 < walked:  # the index has so few others that all can be collected
                break
            walked = min(20 * _WALKED, 2 * walked * limit // len(some))
        return found + self._of_numbers(self._latest_numbers(conditions(0), limit - len(found)))

    def page(self, where: Filter = ALL, after: int = 0, limit: int = 500) -> list[Archived]:
        """Return records in the order in which they were archived; see `ArchiveRepository.page`."""
        return self._select([("number > ?", [after]), *self._conditions(where)], "number", limit)

    def conflicts(self, limit: int = 100) -> list[Conflict]:
        """Return the latest conflicts."""
        statement = f"SELECT {_COLUMNS}, seen_at FROM conflicts ORDER BY seen_at DESC LIMIT ?"  # noqa: S608
        with self._database.transaction() as session:
            rows = session.rows(statement, (limit,))
        return [Conflict(self._record_of(row[:-1]), self._time(row[-1])) for row in rows]

    def unreadable(self, limit: int = 100) -> list[UnreadableEntry]:
        """Return the latest unreadable entries."""
        statement = "SELECT stream, entry_id, reason, response_id, body FROM unreadable_entries "
        with self._database.transaction() as session:
            rows = session.rows(f"{statement} ORDER BY at DESC, entry_id DESC LIMIT ?", (limit,))
        return [
            UnreadableEntry(EntryPlace(stream, entry_id), reason, response_id, bytes(body))
            for stream, entry_id, reason, response_id, body in rows
        ]

    def counts(self) -> Mapping[str, int]:
        """Return the number of rows by table."""
        with self._database.transaction() as session:
            count = "SELECT count(*) FROM"
            return {table: session.rows(f"{count} {table}")[0][0] for table in _TABLES}

    # -------------------------------------------------------------------------------------- holds and looks

    def hold(self, subject: RecordSubject, who: str, why: str) -> Hold:
        """Keep all records of a subject until the hold is released."""
        subject, who, why, at = _checked(subject), storable(who), storable(why), self._clock()
        statement = "INSERT INTO holds (name, value, who, why, at) VALUES (?, ?, ?, ?, ?) RETURNING number"
        with self._database.transaction(writing=True) as session:
            rows = session.rows(statement, (*subject, who, why, self._database.of_time(at)))
        return Hold(rows[0][0], subject, who, why, at)

    def release(self, number: int, who: str) -> bool:
        """End a hold; return False if there is none with this number."""
        statement = (
            "UPDATE holds SET released_at = ?, released_by = ? WHERE number = ? AND released_at IS NULL"
        )
        with self._database.transaction(writing=True) as session:
            return session.run(statement, (self._now(), storable(who), number)) > 0

    def holds(self) -> list[Hold]:
        """Return all holds that were not released, oldest first."""
        with self._database.transaction() as session:
            return self._holds(session)

    def add_look(self, who: str, what: str, found: int) -> None:
        """Record that somebody looked into the archive."""
        values = (self._now(), storable(who), storable(what), found)
        with self._database.transaction(writing=True) as session:
            session.run("INSERT INTO looks (at, who, what, found) VALUES (?, ?, ?, ?)", values)

    def looks(self, limit: int = 100) -> list[ArchiveLook]:
        """Return the latest looks, latest first."""
        statement = "SELECT at, who, what, found FROM looks ORDER BY number DESC LIMIT ?"
        with self._database.transaction() as session:
            return [ArchiveLook(self._time(at), *others) for at, *others in session.rows(statement, (limit,))]

    # -------------------------------------------------------------------------------------------- removing

    def responses_of(self, subject: RecordSubject) -> set[str]:
        """Return the responses of a subject."""
        name, value = _checked(subject)
        if name == "response_id":
            return {value}
        with self._database.transaction() as session:
            return set(_column(session.rows(_RESPONSES.format(name=name), (value,))))

    def held_responses(self, subject: RecordSubject) -> set[str]:
        """Return the responses of a subject of which a hold keeps a record."""
        where, values = _of_subject(_checked(subject))
        statement = f"SELECT DISTINCT response_id FROM records WHERE {where} AND {_HELD_RECORD}"  # noqa: S608
        with self._database.transaction() as session:
            return {each for each in _column(session.rows(statement, values)) if each is not None}

    def deliveries_of(self, subject: RecordSubject, responses: Collection[str] = ()) -> list[bytes]:
        """Return the bodies of the deliveries that `erase` would delete."""
        statement = f"SELECT body FROM records WHERE family = 'delivery' AND NOT {_HELD_RECORD} AND "  # noqa: S608
        with self._database.transaction() as session:
            return [
                bytes(body)
                for where, values in _erased_of(_checked(subject), responses)
                for body in _column(session.rows(statement + where, values))
            ]

    def erase(
        self,
        subject: RecordSubject,
        who: str,
        responses: Collection[str] = (),
        gone: Collection[tuple[str, str]] = (),
    ) -> Erasure:
        """Delete the records of a subject; see `ArchiveRepository.erase`."""
        subject, at = _checked(subject), self._clock()
        name, value = subject
        drop_detached(self._database)  # they may have records of the subject, which no other statement finds
        with self._database.transaction(writing=True) as session:
            held = {
                hold: count
                for hold in self._holds(session)
                if (count := self._held_by(session, hold, f"{name} = ?", [value])) > 0
            }
            conditions = _erased_of(subject, responses)
            further = _further(subject, responses)
            erased = dict.fromkeys(("records", "conflicts", "unreadable_entries"), 0)
            # The records last, since they lead to the responses of the others.
            for where, values in conditions:
                erased["conflicts"] += session.run(
                    f"DELETE FROM conflicts WHERE {where} AND NOT {_HELD_CONFLICT}",  # noqa: S608
                    values,
                )
            erased["unreadable_entries"] = self._erase_unreadable(session, subject, further)
            for where, values in reversed(conditions):
                erased["records"] += self._delete_records(session, where, values)
            # A released hold keeps nothing any more, but who held, who released it, and when, is on record.
            session.run(
                "UPDATE holds SET value = '', why = '' "
                "WHERE name = ? AND value = ? AND released_at IS NOT NULL",
                subject,
            )
            self._refuse_from_now_on(session, gone)
            ((number,),) = session.rows(
                "INSERT INTO erasures (at, who, name, value_digest, counts) VALUES (?, ?, ?, ?, ?) "
                "RETURNING number",
                (
                    self._database.of_time(at),
                    storable(who),
                    name,
                    hashlib.sha256(value.encode()).digest(),
                    json.dumps(erased),
                ),
            )
        return Erasure(subject, at, who, erased, held, number, self._scrub())

    def _scrub(self) -> list[Remainder]:
        """Scrub the database. The rows are gone: an error must not hide it, so it is among what remains."""
        try:
            return self._database.scrub()
        except (ArchiveUnavailableError, ArchiveRefusedError) as error:
            return [Remainder("archive: bytes of deleted rows", f"until you erase again: {error}")]

    def _erase_unreadable(self, session: Session, subject: RecordSubject, further: Sequence[str]) -> int:
        """Delete the unreadable entries of a subject's responses, but those that are held."""
        name, value = subject
        of_subject = "= ?" if name == "response_id" else f"IN ({_RESPONSES.format(name=name)})"
        conditions: list[tuple[str, Sequence[Any]]] = [(f"response_id {of_subject}", [value])]
        conditions += [(f"response_id IN ({_list_of(some)})", some) for some in _slices(further)]
        return sum(
            session.run(f"DELETE FROM unreadable_entries WHERE {where} AND NOT {_HELD_UNREADABLE}", values)  # noqa: S608
            for where, values in conditions
        )

    def _refuse_from_now_on(self, session: Session, keys: Collection[tuple[str, str]]) -> None:
        """Keep the keys of records that the archive has not got, so that it does not take them later."""
        gone_at = self._now()
        for some in _slices([(storable(source), storable(name)) for source, name in keys]):
            rows = [(*key, gone_at) for key in some]
            statement = f"INSERT INTO record_keys (source, id, gone_at) VALUES {_marks(rows)}"  # noqa: S608
            session.run(f"{statement} ON CONFLICT DO NOTHING", _flat(rows))

    def retain(self, rules: Sequence[Retention]) -> Mapping[str, int]:
        """Delete old records; see `ArchiveRepository.retain`."""
        deleted = dict.fromkeys(("records", "conflicts", "unreadable_entries"), 0)
        longest = longest_of(rules)
        if longest is not None:
            deleted["records"] = drop_partitions(self._database, self._clock() - longest, _HELD_RECORD)
        for rule, where, values in self._expired(rules):
            deleted["records"] += self._delete_old_records(where, values)
            with self._database.transaction(writing=True) as session:
                deleted["conflicts"] += session.run(
                    f"DELETE FROM conflicts WHERE {where} AND NOT {_HELD_CONFLICT}",  # noqa: S608
                    values,
                )
                if rule.kind is None and rule.tenant is None:
                    statement = f"DELETE FROM unreadable_entries WHERE at < ? AND NOT {_HELD_UNREADABLE}"  # noqa: S608
                    deleted["unreadable_entries"] += session.run(statement, values[:1])
        with self._database.transaction(writing=True) as session:
            forgotten = self._database.of_time(self._clock() - _GONE_KEPT)
            session.run("DELETE FROM record_keys WHERE gone_at < ?", (forgotten,))
        if any(deleted.values()):
            self._database.tidy()
        return deleted

    def held_beyond(self, rules: Sequence[Retention]) -> Mapping[Hold, int]:
        """Return the records that only a hold keeps; see `ArchiveRepository.held_beyond`."""
        held: dict[Hold, int] = {}
        with self._database.transaction() as session:
            for hold in self._holds(session):
                for _, where, values in self._expired(rules):
                    if count := self._held_by(session, hold, where, values):
                        held[hold] = held.get(hold, 0) + count
        return held

    def _expired(self, rules: Sequence[Retention]) -> Iterator[tuple[Retention, str, list[Any]]]:
        """Yield each rule with the condition for the rows that it expires, and its values, the time first."""
        now = self._clock()
        ordered = sorted(rules, key=lambda rule: (rule.tenant is None, rule.kind is None))
        for number, rule in enumerate(ordered):
            fits, some = _fits(rule)
            oldest = self._database.of_time(now - timedelta(seconds=rule.seconds))
            conditions, values = ["at < ?", fits], [oldest, *some]
            for earlier in ordered[:number]:  # a more specific rule alone decides about its records
                fits, some = _fits(earlier)
                conditions.append(f"NOT {fits}")
                values += some
            yield rule, " AND ".join(conditions), values

    def _delete_old_records(self, where: str, values: Sequence[Any]) -> int:
        """Delete records in transactions so short that the archiver goes on; return the number of records."""
        deleted = 0
        old = f"SELECT number FROM records WHERE {where} AND NOT {_HELD_RECORD} LIMIT {_DELETED_AT_ONCE}"  # noqa: S608
        some = f"number IN ({old})"
        while True:
            with self._database.transaction(writing=True) as session:
                count = self._delete_records(session, some, values)
            deleted += count
            if count < _DELETED_AT_ONCE:
                return deleted

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _delete_records(self, session: Session, where: str, values: Sequence[Any]) -> int:
        """Delete records that are not held, and leave their keys without content; return their number."""
        rows = session.rows(
            f"DELETE FROM records WHERE {where} AND NOT {_HELD_RECORD} RETURNING source, id",  # noqa: S608
            values,
        )
        gone_at = self._now()
        for some in _slices(rows):
            session.run(
                f"UPDATE record_keys SET digest = NULL, gone_at = ? WHERE {_any_of(some)}",  # noqa: S608
                (gone_at, *_flat(some)),
            )
        return len(rows)

    def _held_by(self, session: Session, hold: Hold, where: str, values: Sequence[Any]) -> int:
        """Return the number of records with a condition that a hold keeps, and no earlier one does."""
        earlier = f"holds.released_at IS NULL AND holds.number < ? AND ({_HOLDS_RECORD})"
        rows = session.rows(
            f"SELECT count(*) FROM records WHERE {where} AND {hold.subject.name} = ? "  # noqa: S608
            f"AND NOT EXISTS (SELECT 1 FROM holds WHERE {earlier})",
            (*values, hold.subject.value, hold.number),
        )
        count: int = rows[0][0]
        return count

    def _holds(self, session: Session) -> list[Hold]:
        rows = session.rows(
            "SELECT number, name, value, who, why, at FROM holds WHERE released_at IS NULL ORDER BY number"
        )
        return [
            Hold(number, RecordSubject(name, value), who, why, self._time(at))
            for number, name, value, who, why, at in rows
        ]

    def _end(self) -> int:
        """Return the number after that of the latest record."""
        with self._database.transaction() as session:
            ((latest,),) = session.rows("SELECT max(number) FROM records")
        return 1 + (latest or 0)

    def _latest_numbers(self, conditions: Sequence[tuple[str, Sequence[Any]]], limit: int) -> list[int]:
        """Return the highest numbers of the records that fulfil all conditions.

        All are collected before they are sorted: PostgreSQL would walk through millions of records if it
        expected more texts with these words than there are.
        """
        where = " AND ".join(condition for condition, _ in conditions)
        values = [value for _, some in conditions for value in some]
        statement = f"WITH found AS MATERIALIZED (SELECT number FROM records WHERE {where}) "  # noqa: S608
        statement += "SELECT number FROM found ORDER BY number DESC LIMIT ?"
        with self._database.transaction() as session:
            return list(_column(session.rows(statement, (*values, limit))))

    def _of_numbers(self, numbers: Sequence[int]) -> list[Archived]:
        """Return the records with these numbers, the latest first."""
        found: list[Archived] = []
        for some in _slices(numbers):
            found += self._select([(f"number IN ({_list_of(some)})", some)], "number DESC", len(some))
        return found

    def _select(
        self,
        conditions: Iterable[tuple[str, Sequence[Any]]],
        order: str,
        limit: int,
        *,
        walked: int | None = None,
    ) -> list[Archived]:
        """Return the records that fulfil all conditions.

        If so many are to be walked, the first two conditions are limits of numbers. The others are checked
        for one record after the other, in order, until there are enough: an inner LIMIT keeps them out of
        its plan.
        """
        parts = list(conditions)
        values = [value for _, some in parts for value in some]
        table = "records"
        if walked is not None:
            limits = " AND ".join(condition for condition, _ in parts[:2])
            walk = f"SELECT * FROM records WHERE {limits} ORDER BY {order} LIMIT {walked}"  # noqa: S608
            table = f"({walk}) AS records"
            parts = parts[2:]
        where = " AND ".join(condition for condition, _ in parts) or "1 = 1"
        statement = f"SELECT number, {_COLUMNS} FROM {table} WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608
        with self._database.transaction() as session:
            rows = session.rows(statement, (*values, limit))
        return [Archived(number, self._record_of(row)) for number, *row in rows]

    def _conditions(self, where: Filter) -> Iterator[tuple[str, list[Any]]]:
        """Yield the conditions of a filter, with their values."""
        for name in _FILTERED:
            if (value := getattr(where, name)) is not None:
                yield f"{name} = ?", [storable(value)]
        if where.since is not None:
            yield "at >= ?", [self._database.of_time(where.since)]
        if where.until is not None:
            yield "at < ?", [self._database.of_time(where.until)]

    def _row_of(self, record: Record) -> tuple[Any, ...]:
        return (*record[:_AT], self._database.of_time(record.at), *record[_AT + 1 :])

    def _record_of(self, row: Sequence[Any]) -> Record:
        words, body, digest = row[_AT + 1 :]
        at = self._time(row[_AT])
        return Record._make((*row[:_AT], at, words, bytes(body), bytes(digest)))

    def _now(self) -> Any:
        return self._database.of_time(self._clock())

    def _time(self, stored: Any) -> datetime:
        return self._database.to_time(stored)


def _checked(subject: RecordSubject) -> RecordSubject:
    """Return a subject whose name is safe in a statement.

    Raises:
        ValueError: the name is not one of `SUBJECTS`, or the value is empty.
    """
    if subject.name not in SUBJECTS or not subject.value:
        raise ValueError(f"records are found by {', '.join(SUBJECTS)}, and a value that is not empty")
    return RecordSubject(subject.name, storable(subject.value))


def _of_subject(subject: RecordSubject) -> tuple[str, list[str]]:
    """Return the condition for the rows of a subject, and its values.

    Deliveries have no tenant and no user, and an early alert may lack them: their response leads to them.
    """
    name, value = subject
    if name == "response_id":
        return "(response_id = ?)", [value]
    responses = _RESPONSES.format(name=name)
    return f"({name} = ? OR ({name} IS NULL AND response_id IN ({responses})))", [value, value]


def _further(subject: RecordSubject, responses: Collection[str]) -> list[str]:
    """Return the responses that lead to more than the subject itself does."""
    return [storable(each) for each in responses] if subject.name != "response_id" else []


def _erased_of(subject: RecordSubject, responses: Collection[str]) -> list[tuple[str, list[str]]]:
    """Return the conditions for the rows of a subject and of further responses of it, with their values."""
    further = _slices(_further(subject, responses))
    return [_of_subject(subject)] + [
        (f"({subject.name} IS NULL AND response_id IN ({_list_of(some)}))", list(some)) for some in further
    ]


def _column(rows: Iterable[Sequence[Any]]) -> Iterator[Any]:
    return (row[0] for row in rows)


def _list_of(values: Sequence[Any]) -> str:
    """Return the placeholders of some values."""
    return ", ".join("?" * len(values))


def _any_of(keys: Sequence[Sequence[Any]]) -> str:
    """Return the condition for rows with one of these keys, `(source, id)`."""
    return " OR ".join(["(source = ? AND id = ?)"] * len(keys))


def _fits(rule: Retention) -> tuple[str, list[str]]:
    """Return the condition for records that a rule fits, and its values. The condition is never NULL."""
    conditions = {"kind": rule.kind, "tenant": rule.tenant}
    given = {name: value for name, value in conditions.items() if value is not None}
    if not given:
        return "(1 = 1)", []
    return f"({' AND '.join(f'coalesce({name}, ?) = ?' for name in given)})", [
        each for value in given.values() for each in ("", value)
    ]


def _first_of_each_key(records: Sequence[Record]) -> tuple[dict[tuple[str, str], Record], list[Record]]:
    """Return the first record of each key, and the others."""
    first: dict[tuple[str, str], Record] = {}
    others = [each for each in records if first.setdefault(each.key, each) is not each]
    return first, others


def _slices(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]


def _marks(rows: Sequence[Sequence[Any]]) -> str:
    """Return the placeholders of rows of values."""
    return ", ".join([f"({', '.join('?' * len(rows[0]))})"] * len(rows))


def _flat(rows: Iterable[Sequence[Any]]) -> list[Any]:
    return [value for row in rows for value in row]
