"""Test `deltaloom show`, `search` and `export`, which look into Redis and into the archive."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from archive.migrating import migrate
from archive.record import record_of
from archive.sql_archive import SqlArchive
from archive.sqlite_database import SqliteDatabase
from deltaloom import StreamNames
from tests.archive.made import NOW
from tests.client.test_messages import ALERT, TEXT
from tests.service.cli.command import deltaloom, environment
from tests.streams import add

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from redis.asyncio import Redis


class Places:
    """An archive, and a stream of texts in Redis."""

    def __init__(self, redis: Redis, url: str, prefix: str, archive: SqlArchive, path: Path) -> None:
        self._redis = redis
        self._names = StreamNames(prefix)
        self.archive = archive
        self._plain = environment(url, prefix)
        self._env = {**self._plain, "DELTALOOM_ARCHIVE_URL": f"sqlite:{path}"}

    async def keep(self, number: int, *places: str, **values: Any) -> None:
        """Keep a text in Redis, in the archive, or in both."""
        given = {
            "id": f"text_{number}",
            "response_id": f"resp_{number}",
            "upstream_response_id": None,
            **values,
        }
        data = TEXT.model_copy(update=given).model_dump_json()
        if "redis" in places:
            await add(
                self._redis, self._names.assembled, {"__data__": data, "response_id": given["response_id"]}
            )
        if "archive" in places:
            self.archive.insert([record_of("text", self._names.prefix, [b"__data__", data.encode()], NOW)])

    def run(self, *arguments: str, code: int = 0, archive: bool = True) -> CompletedProcess[str]:
        """Run a command, with or without an archive."""
        done = deltaloom(*arguments, env=self._env if archive else self._plain)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    def found(self, *arguments: str, archive: bool = True) -> list[str]:
        """Return the ids that a search finds."""
        done = self.run("search", *arguments, "--json", archive=archive)
        return [json.loads(line)["message"]["id"] for line in done.stdout.splitlines()]


@pytest.fixture
def places(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> Iterator[Places]:
    """Return an empty archive, and an empty stream."""
    database = SqliteDatabase(tmp_path / "archive.db")
    migrate(database)
    yield Places(redis, redis_url, prefix, SqlArchive(database), tmp_path / "archive.db")
    database.close()


async def test_show_has_what_redis_and_the_archive_know(places: Places) -> None:
    """Show a text once, whichever of the two has it, and those that only the archive has."""
    await places.keep(1, "redis", "archive", text="in both")
    await places.keep(2, "archive", response_id="resp_1", output_index=7, text="older part", tenant="acme")
    await places.keep(3, "archive", text="only there")
    alert = ALERT.model_copy(update={"response_id": "resp_4"}).model_dump_json()
    places.archive.insert([record_of("alert", "x", [b"__data__", alert.encode()], NOW)])
    shown = json.loads(places.run("show", "resp_1", "--json").stdout)
    assert [each["text"] for each in shown["texts"]] == ["in both", "older part"]
    assert "only there" in places.run("show", "resp_3").stdout
    assert json.loads(places.run("show", "resp_4", "--json").stdout)["alerts"]
    assert "nothing is known of resp_3" in places.run("show", "resp_3", code=1, archive=False).stderr
    assert [(look.what, look.found) for look in places.archive.looks()] == [
        ("show", 1),
        ("show", 1),
        ("show", 2),
    ]


async def test_show_goes_on_without_an_archive_that_is_away(places: Places, tmp_path: Path) -> None:
    """Show what Redis has, and say that the archive could not be read."""
    await places.keep(1, "redis", text="in both")
    (tmp_path / "archive.db").unlink()
    done = places.run("show", "resp_1")
    assert "in both" in done.stdout
    assert "without the archive: there is no archive at" in done.stderr


async def test_search_finds_new_texts_and_archived_ones(places: Places) -> None:
    """Find each text once, by words, parts and filters; without an archive, those in Redis."""
    await places.keep(1, "archive", text="I cannot help, sorry", tenant="acme")
    await places.keep(2, "redis", "archive", text="Sorry, no explosives", tenant="acme")
    await places.keep(3, "redis", text="sorry about that", tenant="beta")
    assert sorted(places.found("SORRY")) == ["text_1", "text_2", "text_3"]
    assert sorted(places.found("sorry", "--tenant", "acme")) == ["text_1", "text_2"]
    assert places.found("--part", "XPLOS") == ["text_2"]
    assert places.found("sor") == []
    assert sorted(places.found("sorry", archive=False)) == ["text_2", "text_3"]
    assert places.archive.looks()[0].what == "search --family"


async def test_a_limited_search_finds_the_latest_texts(places: Places) -> None:
    """Order texts of Redis and of the archive by time, also if more are in both."""
    for number in range(1, 5):
        at = NOW - timedelta(days=900 - number)
        held = ("redis",) if number == 2 else ("redis", "archive")
        await places.keep(number, *held, text="sorry", finished_at=at)
    assert places.found("sorry", "--limit", "1") == ["text_4"]
    assert places.found("sorry", "--limit", "3") == ["text_4", "text_3", "text_2"]


async def test_export_is_that_of_the_archive(places: Places) -> None:
    """Export archived records in order, resumable, and record who did."""
    for number in (1, 2):
        await places.keep(number, "archive")
    first, second = places.run("export", "--who", "Ann").stdout.splitlines()
    assert json.loads(first)["message"]["id"] == "text_1"
    assert places.run("export", "--after", "1").stdout.splitlines() == [second]
    assert [look.who for look in places.archive.looks()][1] == "Ann"
