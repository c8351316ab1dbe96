"""Test that an erasure reaches every store, says what it does not reach, and can be verified."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from archive.archive_repository import ArchiveUnavailableError, Inserted, RecordSubject
from archive.certificates import CertificateError, Certificates
from archive.erasing import erase_everywhere
from archive.migrating import migrate
from archive.postgres_database import PostgresDatabase
from archive.record import record_of
from archive.sql_archive import SqlArchive
from archive.sqlite_database import SqliteDatabase
from deltaloom import Partitions, StreamNames
from deltaloom.address import Address
from embedded.embedded_server import EmbeddedServer
from service.storage.client.connection import client_of
from service.storage.subject_erasure import SubjectErasure
from tests.archive.archivers import pending, settings_of
from tests.archive.made import NOW, delivery, fields_of, text
from tests.bench import delta, done
from tests.cluster_servers import running_cluster
from tests.service.cli.command import deltaloom, environment
from tests.streams import add, entries
from tests.waiting import wait_until
from tests.workers import texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from archive.archive_settings import ArchiveSettings
    from archive.database import Database

MARK = "zqxmark"
KEPT = "wvykept"
COMPLETED = {"type": "response.completed", "sequence_number": 100, "response": {"id": "x"}}


async def publish(redis: Redis, names: StreamNames, response: str, word: str, **context: str) -> None:
    """Add a whole response with a refusal that has a word."""
    said = f"No {word}"
    events = [delta(1, said, "refusal"), done(said, "refusal"), COMPLETED]
    await add(redis, names.deltas, {"event": json.dumps(events), "response_id": response, **context})


async def add_beside(redis: Redis, names: StreamNames, response: str, word: str, **context: str) -> None:
    """Add a delivery, an undelivered alert and a dead letter of a response."""
    fields = {
        "id": f"delivery_{response}",
        "response_id": response,
        "destination": "team",
        "outcome": "delivered",
        "privacy": "full",
        "delivered_at": "2026-11-30T11:00:00+00:00",
    }
    await add(redis, names.deliveries, {"__data__": json.dumps(fields), "response_id": response})
    alert = json.dumps({"id": f"alert_{response}", "response_id": response, "text": word, **context})
    await add(redis, names.undelivered, {"__data__": alert, "response_id": response, "destination": "team"})
    entry = {"event": f'{{"type": "x", "delta": "{word}"', "response_id": response, **context}
    await add(redis, names.dead_letters, {"entry": json.dumps(entry), "reason": "malformed_json"})


async def erase(
    redis: Redis, archive: Database, settings: ArchiveSettings, name: str, value: str
) -> dict[str, Any]:
    """Erase a subject everywhere; return the certificate."""
    return await erase_everywhere(
        RecordSubject(name, value),
        "Cy",
        SqlArchive(archive),
        Certificates(archive),
        settings,
        SubjectErasure(redis, settings.names, name, value),
    )


async def everything(redis: Redis) -> bytes:
    """Return all keys and all that can be read in them."""
    found = []
    async for key in redis.scan_iter("*"):
        kind: Any = await redis.type(key)
        reader: dict[bytes, Callable[[bytes], Any]] = {
            b"stream": redis.xrange,
            b"hash": redis.hgetall,
            b"string": redis.get,
            b"zset": lambda key: redis.zrange(key, 0, -1),
        }
        found.append(repr((key, await reader[kind](key))).encode())
    return b"\n".join(found)


async def rewritten(redis: Redis, server: EmbeddedServer) -> bytes:
    """Return all bytes of the server's files, after the files that can be rewritten were."""
    await redis.save()
    await redis.bgrewriteaof()

    async def is_rewritten() -> bool:
        info = await redis.info("persistence")
        return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]

    await wait_until(is_rewritten)
    return b"".join(file.read_bytes() for file in server.folder.rglob("*") if file.is_file())


async def test_no_store_has_a_word_after_an_erasure(database: Database, tmp_path: Path) -> None:
    """Find the words of a person in no file of Redis and of the archive, and those of another one in all."""
    with EmbeddedServer(tmp_path / "redis") as server:
        async with Redis.from_url(server.url) as redis:
            for name, value in (
                ("stream-node-max-entries", "1"),  # as docs/privacy.md says
                ("rdbcompression", "no"),
                ("appendonly", "yes"),
            ):
                await redis.config_set(name, value)
            settings = settings_of(server.url, "deltaloom", "sqlite:unused.db")
            names = StreamNames()
            async with workers_in_process(server.url, "deltaloom", trim_interval=0.1):
                for response, word, user in (("resp_1", MARK, "u1"), ("resp_2", KEPT, "u2")):
                    await publish(redis, names, response, word, safety_identifier=user)
                    await add_beside(redis, names, response, word, safety_identifier=user)
                await wait_until_settled(redis, "deltaloom")
                await add(redis, names.deltas, {"event": "{}"})  # a node is trimmed once a later one is read
                await wait_until_settled(redis, "deltaloom")
                await wait_until(lambda: _is_trimmed(redis, names.deltas))
            archive = SqlArchive(database)
            archive.insert(
                [
                    text(1, text=f"No {MARK}", safety_identifier="u1"),
                    text(2, text=f"No {KEPT}", safety_identifier="u2"),
                    delivery(1, text=MARK, outcome="delivered", destination="pager", privacy="none"),
                ]
            )
            before = await everything(redis)
            assert before.count(MARK.encode()) >= 6
            certificate = await erase(redis, database, settings, "safety_identifier", "u1")
            after = await everything(redis)
            files = await rewritten(redis, server)
        stored = _stored(database)
        assert (MARK.encode() in after, MARK.encode() in files, MARK.encode() in stored) == (False,) * 3
        assert KEPT.encode() in after
        assert KEPT.encode() in files
        assert KEPT.encode() in stored
        assert b"u1" not in after
        assert after.count(KEPT.encode()) == before.count(KEPT.encode())
        assert certificate["erased"]["archive"] == {"records": 2, "conflicts": 0, "unreadable_entries": 0}
        assert certificate["erased"]["redis"] == {
            "prefix": "deltaloom",
            "assembled": 1,
            "alerts": 2,
            "undelivered": 1,
            "deliveries": 1,
            "dead-letters": 1,
            "item": 1,
            "state": 1,
            "log": 0,
        }
        places = {each["place"] for each in certificate["not_reached"]}
        assert {"Redis: append-only file", "Redis: RDB file"} < places
        assert certificate["destinations"] == [
            {"destination": "pager", "text": "none", "alerts": 1, "last": "2026-11-30T12:00:00+00:00"},
            {"destination": "team", "text": "full", "alerts": 1, "last": "2026-11-30T11:00:00+00:00"},
        ]


async def _is_trimmed(redis: Redis, stream: str) -> bool:
    return MARK.encode() not in repr(await redis.xrange(stream)).encode()


def _stored(database: Database) -> bytes:
    """Return the bytes of a file and those beside it, or a dump of a server."""
    if isinstance(database, SqliteDatabase):
        database.close()
        path: Path = database._path  # noqa: SLF001
        return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    rows = []
    with database.transaction() as session:
        for (table,) in session.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            for row in session.rows(f"SELECT * FROM {table}"):  # noqa: S608
                rows += [
                    bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                    for value in row
                ]
    return b"\n".join(rows)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteDatabase]:
    """Return a database in a file."""
    opened = SqliteDatabase(tmp_path / "archive.db")
    migrate(opened)
    yield opened
    opened.close()


async def add_text(redis: Redis, stream: str, **values: Any) -> None:
    """Add a text to a stream."""
    flat = fields_of(**values)
    await redis.xadd(stream, dict(zip(flat[::2], flat[1::2], strict=True)))


async def test_what_a_hold_keeps_stays_in_redis(
    redis: Redis, redis_url: str, prefix: str, file: SqliteDatabase
) -> None:
    """Keep held entries that the archive has yet to take, and take them then."""
    names, archive = StreamNames(prefix), SqlArchive(file)
    held = {"id": "a", "response_id": "resp_1", "tenant": "acme", "reference": "r", "source": prefix}
    await add_text(redis, names.assembled, **held)
    await add_text(redis, names.alerts, id="early", response_id="resp_1", source=prefix)
    await add_text(redis, names.assembled, id="b", response_id="resp_2", tenant="acme", source=prefix)
    archive.insert([text(1, id="c", source=prefix, tenant=None)])
    archive.hold(RecordSubject("reference", "r"), "Ann", "case 7")
    settings = settings_of(redis_url, prefix, "sqlite:unused.db")
    certificate = await erase(redis, file, settings, "tenant", "acme")
    assert certificate["held_in_redis"] == 2
    assert certificate["erased"]["redis"]["assembled"] == 1
    assert await redis.xlen(names.assembled) == await redis.xlen(names.alerts) == 1
    taken = record_of("text", prefix, fields_of(**held), NOW)
    assert archive.insert([taken]) == Inserted(new=1)
    assert {each.record.id for each in archive.page()} == {"a", "c"}


async def test_an_archiver_does_not_bring_back_what_it_has_in_hand(
    redis: Redis, redis_url: str, prefix: str, file: SqliteDatabase
) -> None:
    """Refuse entries that were read before the erasure and are inserted after it; none is left pending."""
    names, archive = StreamNames(prefix), SqlArchive(file)
    values = {"id": "a", "response_id": "resp_1", "tenant": "acme", "source": prefix}
    await add_text(redis, names.assembled, **values)
    await redis.xgroup_create(names.assembled, "archive", id="0")
    await redis.xreadgroup("archive", "one", {names.assembled: ">"})
    settings = settings_of(redis_url, prefix, "sqlite:unused.db")
    await erase(redis, file, settings, "tenant", "acme")
    assert archive.insert([record_of("text", prefix, fields_of(**values), NOW)]) == Inserted(repeated=1)
    assert (await pending(redis, names.assembled))[0] == 0


async def test_a_response_of_another_tenant_with_the_same_id_stays(
    redis: Redis, redis_url: str, prefix: str, file: SqliteDatabase
) -> None:
    """Erase what names no tenant with its response, and nothing that names another one."""
    names, archive = StreamNames(prefix), SqlArchive(file)
    for tenant in ("acme", "beta"):
        await add_text(redis, names.assembled, id=tenant, response_id="resp_1", tenant=tenant)
        archive.insert([text(1, id=tenant, tenant=tenant)])
    await add_text(redis, names.alerts, id="early", response_id="resp_1")
    archive.insert([text(1, id="early")])
    settings = settings_of(redis_url, prefix, "sqlite:unused.db")
    certificate = await erase(redis, file, settings, "tenant", "acme")
    assert (certificate["erased"]["redis"]["assembled"], certificate["erased"]["redis"]["alerts"]) == (1, 1)
    assert [each.record.id for each in archive.page()] == ["beta"]


async def test_an_open_response_ends_with_its_exact_text(
    redis: Redis, redis_url: str, prefix: str, file: SqliteDatabase
) -> None:
    """Leave the state of an open response, and name it; erase it once it has ended."""
    names = StreamNames(prefix)
    settings = settings_of(redis_url, prefix, "sqlite:unused.db")
    async with workers_in_process(redis_url, prefix):
        opening = json.dumps(delta(1, "No ", "refusal"))
        await add(redis, names.deltas, {"event": opening, "response_id": "resp_1", "reference": "r"})
        await wait_until_settled(redis, prefix)
        certificate = await erase(redis, file, settings, "reference", "r")
        assert certificate["still_open"] == ["resp_1"]
        assert certificate["erased"]["redis"]["alerts"] == 1
        rest = json.dumps([delta(2, "way", "refusal"), done("No way", "refusal"), COMPLETED])
        await add(redis, names.deltas, {"event": rest, "response_id": "resp_1"})
        await wait_until_settled(redis, prefix)
    (found,) = await texts(redis, prefix)
    assert (found.text, found.integrity) == ("No way", "verified")
    certificate = await erase(redis, file, settings, "response_id", "resp_1")
    assert certificate["still_open"] == []
    assert (certificate["erased"]["redis"]["item"], certificate["erased"]["redis"]["state"]) == (1, 1)
    await redis.delete(names.deltas)
    assert b"No way" not in await everything(redis)


@pytest.mark.parametrize(
    "entry",
    [
        '{"tenant": "acme", "event": "{"}',
        '{"response_id": "resp_1", "event": "{}"}',
        json.dumps({"event": json.dumps([{"type": "x"}, {"response": {"tenant": "acme"}}])}),
        json.dumps({"event": '{"type": "x", "tenant": "acme", "delta": "cut of'}),
        json.dumps({"event": '{"type": "x", "tenant": "acme", "delta": "cut off, and so is its let'})[:-4],
        json.dumps({"event": r'{"type": "x", "tenant": "\u0061cme", "delta": "cut of'}),
        json.dumps({"event": '{"type": "x", "response": {"id": "resp_1", "output": ["cut of'}),
        json.dumps({"event": '{"sub_tenant": "b", "delta": "cut of', "response_id": "resp_1"}),
        '{"event": {"base64": "eyJ0ZW5hbnQiOiAiYWNtZSIsICJ4IjogIv8ifQ=="}}',
    ],
)
async def test_dead_letters_are_found_by_what_their_entries_say(
    redis: Redis, redis_url: str, prefix: str, file: SqliteDatabase, entry: str
) -> None:
    """Find letters by fields and events, whole, cut, escaped or binary; a word in a text is no value."""
    names = StreamNames(prefix)
    await add_text(redis, names.assembled, response_id="resp_1", tenant="acme")
    await add(redis, names.dead_letters, {"entry": entry})
    other = json.dumps({"event": '{"delta": "acme", "tenant": "b"}'})
    await add(redis, names.dead_letters, {"entry": other})
    settings = settings_of(redis_url, prefix, "sqlite:unused.db")
    certificate = await erase(redis, file, settings, "tenant", "acme")
    assert certificate["erased"]["redis"]["dead-letters"] == 1
    assert [fields[b"entry"] for _, fields in await entries(redis, names.dead_letters)] == [other.encode()]


async def test_erasing_in_a_cluster(tmp_path: Path, file: SqliteDatabase) -> None:
    """Reach entries, items and states on all masters."""
    async with (
        running_cluster(tmp_path, replicas=0) as cluster,
        client_of(Address.parse(f"redis+cluster://{cluster.addresses}", None)) as redis,
    ):
        url = f"redis+cluster://{cluster.addresses}"
        partitions = Partitions(3, "deltaloom")
        async with workers_in_process(url, "deltaloom", partitions=3):
            for number in range(12):
                user, word = (("u1", MARK), ("u2", KEPT))[number % 2]
                names = partitions.of(f"resp_{number}")
                await publish(redis, names, f"resp_{number}", word, safety_identifier=user)
            for names in partitions.all:
                await wait_until(partial(_is_settled, redis, names))
        settings = settings_of(url, "deltaloom", "sqlite:unused.db", partitions=3)
        certificate = await erase(redis, file, settings, "safety_identifier", "u1")
        erased = certificate["erased"]["redis"]
        assert [erased[place] for place in ("assembled", "alerts", "item", "state")] == [6, 12, 6, 6]
        assert certificate["still_open"] == []
        left = [await redis.xlen(names.assembled) for names in partitions.all]
        assert sum(left) == 6


async def _is_settled(redis: Redis, names: StreamNames) -> bool:
    return (
        not await redis.zcard(names.name("open"))
        and not (await redis.xpending(names.deltas, "deltaloom"))["pending"]
        and (await redis.xinfo_groups(names.deltas))[0]["lag"] == 0
    )


def test_a_certificate_is_verified(file: SqliteDatabase) -> None:
    """Refuse a changed certificate, one of another archive, and a chain of which a link is gone."""
    certificates = Certificates(file)
    first, second, third = (certificates.issue({"at": f"{number}"}, number) for number in range(3))
    assert [certificates.verify(each) for each in (first, second, third)] == [3, 3, 3]
    assert second["chain"]["previous"] == first["chain"]["own"]
    for changed in (
        {**first, "at": "9"},
        {**first, "more": 1},
        {**first, "chain": {**first["chain"], "previous": "00"}},
        {**first, "chain": second["chain"]},
        {**first, "chain": {**first["chain"], "number": 9}},
        {"at": "0"},
    ):
        with pytest.raises(CertificateError):
            certificates.verify(changed)
    with file.transaction(writing=True) as session:
        session.run("DELETE FROM certificates WHERE number = 2")
    with pytest.raises(CertificateError, match="broken at certificate 3"):
        certificates.verify(first)


async def test_the_command_erases_in_both_and_its_certificate_is_verified(
    redis: Redis, redis_url: str, prefix: str, file: SqliteDatabase, tmp_path: Path
) -> None:
    """Erase in archive and Redis, name a hold with exit code 1, and verify the certificate."""
    env = environment(redis_url, prefix, DELTALOOM_ARCHIVE_URL=f"sqlite:{tmp_path / 'archive.db'}")
    names, archive = StreamNames(prefix), SqlArchive(file)
    for number, reference in ((1, "r"), (2, None)):
        archive.insert([text(number, tenant="acme", reference=reference)])
        await add_text(redis, names.assembled, response_id=f"resp_{number}", tenant="acme")
    archive.hold(RecordSubject("reference", "r"), "Ann", "case 7")
    done = deltaloom("archive", "erase", "--tenant", "acme", "--yes", "--who", "Cy", env=env)
    assert done.returncode == 1
    assert "hold 1 of Ann keeps 1 record: case 7" in done.stderr
    assert "holds keep 1 place in Redis" in done.stderr
    certificate = json.loads(done.stdout)
    assert (certificate["who"], certificate["subject"]) == ("Cy", {"tenant": "acme"})
    assert certificate["held_in_redis"] == await redis.xlen(names.assembled) == 1
    path = tmp_path / "certificate.json"
    for content, code, said in (
        (json.dumps(certificate, indent=2), 0, "it is certificate 1 of 1, and the chain is whole"),
        (
            json.dumps({**certificate, "held": []}),
            1,
            "it is not the certificate that the archive has recorded",
        ),
        ("[]", 1, "it is no certificate of an erasure"),
        ("{", 1, "it is not JSON"),
    ):
        path.write_text(content)
        done = deltaloom("archive", "verify", str(path), env=env)
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done


@pytest.mark.parametrize("is_read", [True, False])
async def test_what_a_reader_keeps_from_being_removed_is_certified(
    database: Database, *, is_read: bool
) -> None:
    """Name bytes that an older transaction keeps, and none after its end."""
    archive, certificates = SqlArchive(database), Certificates(database)
    archive.insert([text(1, text=MARK, safety_identifier="u1")])
    subject, settings = (
        RecordSubject("safety_identifier", "u1"),
        settings_of("redis://localhost", "p", "sqlite:x"),
    )
    with ExitStack() as reading:
        if is_read:
            reading.enter_context(reader_of(database))
        issued = await erase_everywhere(subject, "Cy", archive, certificates, settings, None)
        assert bool(issued["remains"]) is is_read, issued["remains"]
        assert issued["erased"]["archive"]["records"] == 1
        assert certificates.verify(issued) == 1
    again = await erase_everywhere(subject, "Cy", archive, certificates, settings, None)
    assert again["remains"] == []
    assert MARK.encode() not in _stored(database)


@contextmanager
def reader_of(database: Database) -> Iterator[None]:
    """Hold a transaction of another process open that sees the present rows."""
    if isinstance(database, SqliteDatabase):
        database._busy = 0.1  # noqa: SLF001
        database.close()
        with closing(sqlite3.connect(database._path, isolation_level=None)) as reader:  # noqa: SLF001
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM records").fetchall()
            yield
        return
    assert isinstance(database, PostgresDatabase)
    other = PostgresDatabase(database._url)  # noqa: SLF001
    try:
        with other.transaction() as session:
            session.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            session.rows("SELECT count(*) FROM records")
            yield
    finally:
        other.close()


async def test_a_failed_scrub_is_certified(file: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the certificate of rows that are gone, and say that their bytes are not."""

    def fail() -> None:
        raise ArchiveUnavailableError("disk I/O error")

    archive, certificates = SqlArchive(file), Certificates(file)
    archive.insert([text(1, tenant="acme")])
    monkeypatch.setattr(file, "scrub", fail)
    settings = settings_of("redis://localhost", "p", "sqlite:x")
    subject = RecordSubject("tenant", "acme")
    issued = await erase_everywhere(subject, "Cy", archive, certificates, settings, None)
    assert issued["erased"]["archive"]["records"] == 1
    assert "disk I/O error" in issued["remains"][0]["until"]
    assert certificates.verify(issued) == 1


async def test_deliveries_of_texts_that_only_redis_has_are_certified(
    redis: Redis, redis_url: str, prefix: str, file: SqliteDatabase
) -> None:
    """Name the destination of each response's alerts, though only Redis knows whose a response is."""
    names, archive = StreamNames(prefix), SqlArchive(file)
    archive.insert(
        [text(1, tenant="acme"), delivery(1, outcome="delivered", destination="one", privacy="full")]
    )
    archive.insert([delivery(2, outcome="delivered", destination="two", privacy="full")])
    archive.insert([delivery(3, outcome="delivered", destination="other", privacy="full")])
    await add_text(redis, names.assembled, id="b", response_id="resp_2", tenant="acme", source=prefix)
    settings = settings_of(redis_url, prefix, "sqlite:unused.db")
    certificate = await erase(redis, file, settings, "tenant", "acme")
    assert certificate["erased"]["archive"]["records"] == 3
    assert [each["destination"] for each in certificate["destinations"]] == ["one", "two"]


def test_a_released_hold_does_not_keep_the_value_of_who_is_erased(database: Database) -> None:
    """Forget the value and reason of released holds of the subject; a hold that stands keeps them."""
    archive, subject = SqlArchive(database), RecordSubject("safety_identifier", MARK)
    for _ in range(2):
        archive.hold(subject, "Ann", f"case of {MARK}")
    archive.hold(RecordSubject("safety_identifier", "u2"), "Ann", KEPT)
    archive.release(1, "Bo")
    archive.erase(subject, "Cy")
    assert [(each.number, each.subject.value) for each in archive.holds()] == [(2, MARK), (3, "u2")]
    archive.release(2, "Bo")
    archive.erase(subject, "Cy")
    stored = _stored(database)
    assert (MARK.encode() in stored, KEPT.encode() in stored) == (False, True)
    assert stored.count(b"Bo") >= 2
