"""Tests of hidden texts, the record of looks, the search in the archive, and actions that are not allowed."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from archive.migrating import migrate
from archive.sql_archive import SqlArchive
from archive.sqlite_database import SqliteDatabase
from console.access import Visitor
from console.console_command import loaded
from console.console_errors import ConsoleError
from console.looks import ONE_LOOK_SECONDS, Looks
from deltaloom import StreamNames
from service.alerts.deciding.findings import ConfigError
from tests.archive.made import text
from tests.console.made import delta, publish
from tests.console.running import console
from tests.relays import SECRETS, destination, raise_alert
from tests.streams import add, entries
from tests.webhook_receiver import receiving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis.asyncio import Redis


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[SqlArchive]:
    """Yield an archive in a file of SQLite, with two texts."""
    database = SqliteDatabase(tmp_path / "archive.db")
    migrate(database)
    made = SqlArchive(database)
    made.insert(
        [text(1, tenant="acme", text="Write to ann@example.com for the zqxmark."), text(2, text="Not this")]
    )
    yield made
    database.close()


async def test_an_open_page_is_one_look_in_ten_minutes(tmp_path: Path) -> None:
    """A page that asks every five seconds does not fill the record; another visitor or page is a look."""
    now = 0.0
    file = tmp_path / "looks.jsonl"
    looks = Looks(file, None, lambda: now)
    ann, bob = Visitor("ann"), Visitor("bob")
    for visitor, page in ((ann, "alerts"), (ann, "alerts"), (bob, "alerts"), (ann, "health")):
        await looks.add_once(visitor, page)
    now = ONE_LOOK_SECONDS - 1
    await looks.add_once(ann, "alerts")
    now += 1
    await looks.add_once(ann, "alerts")
    recorded = [(look.who, look.what) for look in await looks.of_former_runs()]
    assert recorded == [("ann", "alerts"), ("bob", "alerts"), ("ann", "health"), ("ann", "alerts")]


async def test_a_look_that_was_not_recorded_is_tried_again(tmp_path: Path) -> None:
    """A page that could not be recorded is not taken for one that was."""
    looks = Looks(tmp_path / "later" / "looks.jsonl", None)
    with pytest.raises(ConsoleError):
        await looks.add_once(Visitor("ann"), "alerts")
    (tmp_path / "later").mkdir()
    await looks.add_once(Visitor("ann"), "alerts")
    assert len(await looks.of_former_runs()) == 1


async def test_lines_of_others_in_the_record_are_left_out(tmp_path: Path) -> None:
    """A line that was cut, or is of another program, does not keep a console from starting."""
    file = tmp_path / "looks.jsonl"
    file.write_text('{"at": "2026-\n[]\n{}\n{"at": 7, "who": "a", "what": "b"}\n{"at": "soon", "who": ""}\n')
    assert await Looks(file, None).of_former_runs() == []
    assert await Looks(None, None).of_former_runs() == []


async def test_marks_in_the_archive_are_read_back(archive: SqlArchive, tmp_path: Path) -> None:
    """A console whose looks are in the archive knows after a start who has seen an alert."""
    url = f"sqlite:{tmp_path / 'archive.db'}"
    async with console(archive_url=url, allows_actions=True) as client:
        _, mark = await client.act("api/alerts/opened_1/seen", {})
    assert [look.what for look in archive.looks()] == ["console seen opened_1"]
    async with console(archive_url=url) as client:
        found = client.app.seen.get("opened_1")
        assert found is not None
        assert found["by"] == mark["by"]
        assert abs(found["at"] - mark["at"]) < 60_000


async def test_a_search_finds_and_is_recorded_without_its_words(archive: SqlArchive, tmp_path: Path) -> None:
    """A person finds a text by its words, redacted as in alerts; the record has the count, not the words."""
    url = f"sqlite:{tmp_path / 'archive.db'}"
    file = tmp_path / "alerts.toml"
    file.write_text(destination("team", "http://127.0.0.1:9"))
    async with console(archive_url=url, alerts_file=loaded(file, needs_secrets=False)) as client:
        (hit,) = (await client.json("api/search?q=ZQXMARK&tenant=acme"))["hits"]
        assert (hit["response_id"], hit["kind"], hit["hidden"]) == ("resp_1", "refusal", False)
        assert "ann@example.com" not in hit["excerpt"]
        ((first, last),) = hit["marks"]
        assert hit["excerpt"][first:last] == "zqxmark"
        assert (await client.json("api/search?q=zqxmark&tenant=beta"))["hits"] == []
        assert await client.status("api/search?q=x&before=soon") == HTTPStatus.BAD_REQUEST
    looks = archive.looks()
    assert [(look.what, look.found) for look in looks] == [("console search", 0), ("console search", 1)]
    async with console(archive_url=url, console_texts="hidden") as client:
        (hit,) = (await client.json("api/search?q=zqxmark"))["hits"]
        assert (hit["excerpt"], hit["hidden"], hit["marks"]) == (None, True, [])


def test_only_actions_need_the_secrets_of_destinations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console that only shows starts without secrets, so its machine need not have them."""
    monkeypatch.delenv("RECEIVER_SECRET", raising=False)
    file = tmp_path / "alerts.toml"
    file.write_text(destination("team", "http://127.0.0.1:9"))
    assert [*loaded(file, needs_secrets=False).destinations] == ["team"]
    with pytest.raises(ConfigError, match="RECEIVER_SECRET"):
        loaded(file, needs_secrets=True)
    monkeypatch.setenv("RECEIVER_SECRET", SECRETS["RECEIVER_SECRET"])
    assert [*loaded(file, needs_secrets=True).destinations] == ["team"]


async def test_an_alert_that_is_refused_again_stays(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person reads why a destination refuses an alert again; one that is taken is undelivered no more."""
    monkeypatch.setenv("RECEIVER_SECRET", SECRETS["RECEIVER_SECRET"])
    names = StreamNames(prefix)
    alert_id = await raise_alert(redis, prefix, "opened", "resp_1", text="Write to ann@example.com.")
    ((entry_id, alert),) = await entries(redis, names.alerts)
    given = {"destination": "team", "reason": "refused", "answer": "400", "attempts": "1"}
    given |= {"failed_at": "2026-11-30T12:00:00Z", "entry_id": entry_id}
    await add(redis, names.undelivered, {**given, "__data__": alert[b"__data__"].decode()})
    async with receiving() as receiver:
        file = tmp_path / "alerts.toml"
        file.write_text(destination("team", receiver.url))
        async with console(
            redis_url=redis_url,
            prefix=prefix,
            allows_actions=True,
            alerts_file=loaded(file, needs_secrets=True),
            console_looks_file=tmp_path / "looks.jsonl",
        ) as client:
            (shown,) = (await client.json("api/alerts"))["alerts"]
            assert "ann@example.com" not in shown["text"]
            receiver.answer = lambda _id, _count: web.Response(status=400)
            path, body = f"api/alerts/{alert_id}/resend", {"destination": "team"}
            status, answer = await client.act(path, body)
            assert (status, answer["outcome"]) == (HTTPStatus.OK, "undelivered")
            assert "400" in answer["answer"]
            assert await redis.xlen(names.undelivered) == 1
            assert (await client.act(path, {"destination": "other"}))[0] == HTTPStatus.NOT_FOUND
            receiver.answer = lambda _id, _count: web.Response()
            assert (await client.act(path, body))[1] == {"outcome": "delivered", "answer": "delivered"}
            assert await redis.xlen(names.undelivered) == 0
            assert (await client.act(path, body))[0] == HTTPStatus.NOT_FOUND
    looks = [json.loads(line)["what"] for line in (tmp_path / "looks.jsonl").read_text().splitlines()]
    assert looks == [f"console resend {alert_id}"] * 2


async def test_hidden_texts_are_shown_to_who_asks(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Words are hidden until somebody asks, and that is recorded before they are shown."""
    file = tmp_path / "looks.jsonl"
    given: dict[str, Any] = {"redis_url": redis_url, "prefix": prefix, "console_texts": "hidden"}
    async with console(**given, console_looks_file=file) as client:
        assert (await client.json("api/me"))["may_show_texts"]
        await publish(redis, prefix, "resp_1", delta(1, "secret words"))
        async with client.watching() as page:
            await page.until(lambda page: page.rows)
            (part,) = page.rows["resp_1"]["parts"]
            assert (part["text"], part["hidden"], part["length"]) == (None, True, 12)
        assert not file.exists()
        async with client.watching("api/now?texts=1") as page:
            await page.until(lambda page: page.rows)
            assert page.rows["resp_1"]["parts"][0]["text"] == "secret words"
        (look,) = map(json.loads, file.read_text().splitlines())
        assert (look["who"], look["what"]) == ("(somebody on this machine)", "console texts of now")
    async with console(**given) as client:
        assert not (await client.json("api/me"))["may_show_texts"]
        assert await client.status("api/now?texts=1") == 403
    async with console(**given, console_looks_file=tmp_path / "no" / "folder") as client:
        assert await client.status("api/now?texts=1") == 503


async def test_a_mark_is_kept_and_only_where_actions_are_allowed(tmp_path: Path) -> None:
    """A console that starts again knows who has seen an alert; one without actions changes nothing."""
    file = tmp_path / "looks.jsonl"
    async with console(console_looks_file=file) as client:
        for path in ("api/alerts/opened_1/seen", "api/alerts/opened_1/resend"):
            assert (await client.act(path, {"destination": "team"}))[0] == 403
            assert await client.status(path) == 405
    assert not file.exists()
    async with console(console_looks_file=file, allows_actions=True) as client:
        status, mark = await client.act("api/alerts/opened_1/seen", {})
        assert (status, mark["by"]) == (200, "(somebody on this machine)")
        assert (await client.act("api/alerts/opened_1/seen", {}))[1] == mark
        bodies: list[object] = [[], "x", {"destination": 7}, {}]
        for body in bodies:
            assert (await client.act("api/alerts/opened_1/resend", body))[0] == 400
        assert (await client.act("api/alerts/opened_1/resend", {"destination": "x" * 20_000}))[0] == 413
        assert (await client.act("api/alerts/opened_1/resend", {"destination": "team"}))[0] == 404
    async with console(console_looks_file=file) as client:
        assert client.app.seen.get("opened_1") is not None


async def test_an_archive_that_is_away_is_said(tmp_path: Path) -> None:
    """A search without an archive, or while it is away, is a sentence."""
    async with console() as client:
        assert await client.status("api/search?q=x") == 404
    async with console(archive_url=f"sqlite:{tmp_path / 'none.db'}") as client:
        assert await client.status("api/search?q=x") == 503
