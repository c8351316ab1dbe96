"""Test the health and the metrics of archivers."""

from __future__ import annotations

import io
import json
import threading
from typing import TYPE_CHECKING, Any

from archive import archive_app, archiver
from archive.archive_figures import MeasuredArchive
from archive.archive_repository import ArchiveUnavailableError
from archive.database_thread import DatabaseThread
from archive.sql_archive import SqlArchive
from deltaloom import StreamNames
from service import logs
from service.retrying import RetryUntilAvailable
from service.settings import Settings
from tests.archive.archivers import add, add_texts, archiving, pending, settings_of, start_process
from tests.probes import Probes
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from redis.asyncio import Redis

    from archive.archive_app import ArchiveApp
    from archive.archive_repository import Inserted


def values_of(app: ArchiveApp) -> dict[str, Any]:
    """Return the values of metrics without labels, or by the value of their label."""
    return {
        name: by_labels[()] if () in by_labels else {labels[0]: value for labels, value in by_labels.items()}
        for name, by_labels in app.samples().items()
    }


async def test_metrics_say_what_waits_and_what_was_done(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    """Export what is not archived while the database is away, and what was archived when it is back."""
    folder = tmp_path / "not_yet"
    names = StreamNames(prefix)
    await redis.xadd(names.assembled, {"a": "b"}, id="1000-0")
    await add_texts(redis, names.assembled, 0, 3)
    await add(redis, names.alerts, {"id": "alert_1", "severity": "warning"})
    settings = settings_of(redis_url, prefix, f"sqlite:{folder}/archive.db", http="127.0.0.1:0")
    async with archiving(settings) as app:
        await wait_until(lambda: app.archiver.away, message="the database is away")
        await wait_until(lambda: "archive_oldest_seconds" in app.samples(), message="it has measured")
        before = values_of(app)
        assert (before["redis_up"], before["archive_database_up"]) == (1, 0)
        assert before["archive_waiting_entries"] == 5
        assert before["archive_oldest_seconds"] > 365 * 86400
        assert (await app.status())["waiting_entries"] == 5
        assert set(before["archive_entries_total"].values()) == {0}
        folder.mkdir()
        await wait_until(lambda: app.archiver.counts["new"] == 4, message="they are archived")
        after = values_of(app)
        assert after["archive_database_up"] == 1
        assert after["archive_entries_total"] == dict.fromkeys(("repeated", "conflicts", "lost"), 0) | {
            "new": 4,
            "unreadable": 1,
        }
        assert sum(after["archive_commit_seconds"].counts) == 2
        assert await pending(redis, names.assembled) == (0, 0)


async def test_a_database_that_hangs_is_away(
    redis: Redis, redis_url: str, prefix: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be not ready while a call of the database does not end, though none has failed."""
    await add_texts(redis, StreamNames(prefix).assembled, 0, 1)
    hangs, goes_on = threading.Event(), threading.Event()
    async with archiving(settings_of(redis_url, prefix, f"sqlite:{path}")) as app:
        await wait_until(lambda: app.started and not app.not_ready(), message="it is ready")

        def hang(archive: MeasuredArchive, *batch: Any) -> Inserted:
            hangs.set()
            goes_on.wait(30)
            return SqlArchive.insert(archive, *batch)

        monkeypatch.setattr(MeasuredArchive, "insert", hang)
        monkeypatch.setattr(archive_app, "_SLOW_SECONDS", 0.0)
        await add_texts(redis, StreamNames(prefix).assembled, 1, 1)
        await wait_until(hangs.is_set, message="it inserts")
        assert app.not_ready() == ["the archive's database has not answered for 0 s"]
        assert values_of(app)["archive_database_up"] == 0
        goes_on.set()
        await wait_until(lambda: app.archiver.counts["new"] == 2, message="it goes on")


async def test_the_log_has_each_cause_once(monkeypatch: pytest.MonkeyPatch, archive: SqlArchive) -> None:
    """Log why the database is away, again only if the reason changes, and when it is back."""
    monkeypatch.setattr(archiver, "_FIRST_PAUSE", 0)
    log = io.StringIO()
    logs.configure(Settings(log_format="json"), log)
    causes = iter(["AdminShutdown 57P01", *["connection failed"] * 3])

    def step() -> str:
        for cause in causes:
            raise ArchiveUnavailableError(cause)
        return "done"

    thread = DatabaseThread()
    waiting = archiver.Archiver(archive, thread, RetryUntilAvailable())
    assert await waiting.until_available(step) == "done"
    thread.stop()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(each["level"], each.get("error")) for each in lines] == [
        ("warning", "AdminShutdown 57P01"),
        ("warning", "connection failed"),
        ("info", None),
    ]


async def test_an_archiver_answers_probes(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Answer as a worker does: by HTTP and heartbeat, until it has stopped."""
    probes = Probes.of(tmp_path)
    await add_texts(redis, StreamNames(prefix).assembled, 0, 1)
    running = await start_process(
        redis_url, prefix, f"sqlite:{tmp_path}/archive.db", tmp_path / "log", **probes.settings
    )

    async def has_archived() -> bool:
        return 'deltaloom_archive_entries_total{outcome="new"} 1.0' in (await probes.got("/metrics"))[1]

    try:
        await wait_until(has_archived, 60, message="it has archived the text")
        assert await probes.seen() == (200, 200, True)
        assert await probes.status("/startupz") == 200
        status = await probes.json("/statusz")
        assert status["archive"]["entries"]["new"] == 1
        assert "archive_url" not in status["settings"]
        assert await running.stop() == 0
        assert not probes.heartbeat.exists()
    finally:
        await running.kill()
