"""Test that killed archivers lose and double nothing, and that the comparison finds what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from archive.archive_repository import Archived
from archive.record import record_of
from chaos.archivers import Found, Written, violations

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def body(name: str, text: str = "no") -> bytes:
    """Return a message."""
    return json.dumps({"id": name, "text": text}).encode()


def archived(number: int, name: str, text: str = "no") -> Archived:
    """Return a record with a number."""
    return Archived(number, record_of("text", "deltaloom", [b"__data__", body(name, text)], NOW))


WRITTEN = Written({"a": body("a"), "b": body("b")}, {"b": body("b", "other")}, {b"bad"})
RECORDS = [archived(1, "a"), archived(3, "b", "other")]


def test_all_messages_once_are_no_violation() -> None:
    """Accept either content of an id as the first one, and gaps between numbers."""
    assert list(violations(WRITTEN, Found(RECORDS, [body("b")], 1, [1, 3]))) == []


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (Found([*RECORDS, archived(4, "a")], [body("b")], 1, [1, 3, 4]), "there twice, such as a"),
        (Found(RECORDS[:1], [body("b")], 1, [1]), "1 messages are missing, such as b"),
        (Found([*RECORDS, archived(4, "c")], [body("b")], 1, [1, 3, 4]), "never written, such as c"),
        (Found([archived(1, "a", "x"), RECORDS[1]], [body("b")], 1, [1, 3]), "contents differ"),
        (Found(RECORDS, [], 1, [1, 3]), "contents differ"),
        (Found(RECORDS, [body("b")], 0, [1, 3]), "1 entries were no messages, 0 are kept"),
        (Found(RECORDS, [body("b")], 1, [3]), "the reader got 1 records, 2 are there"),
    ],
)
def test_each_difference_is_a_violation(found: Found, wrong: str) -> None:
    """Find what is doubled, missing, unknown, changed, and what the reader has missed."""
    assert any(wrong in each for each in violations(WRITTEN, found))


@pytest.mark.parametrize(
    "database", [pytest.param("--sqlite", marks=pytest.mark.slow), pytest.param("", marks=pytest.mark.prove)]
)
def test_killed_archivers_lose_and_double_nothing(database: str) -> None:
    """Run a short time, with each fault once, and a migration while archivers write."""
    command = [sys.executable, "-m", "chaos.archivers", "--minutes", "0.2", "--seed", "1", *database.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'migrate': 1" in done.stdout
