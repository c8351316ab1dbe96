"""Records for tests, made as the archiver makes them: of the fields of entries."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from archive.record import Record, record_of

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def fields_of(**values: Any) -> list[bytes]:
    """Return the fields of a text's entry."""
    message = {
        "schema": 1,
        "source": "deltaloom",
        "type": "deltaloom.text.assembled",
        "id": "text_1",
        "kind": "refusal",
        "response_id": "resp_1",
        "text": "I cannot help with that.",
        "finished_at": NOW.isoformat(),
    }
    return [b"__data__", json.dumps(message | values).encode()]


def text(number: int = 1, *, age: float = 0, **values: Any) -> Record:
    """Return the record of a text, finished `age` seconds ago."""
    at = NOW - timedelta(seconds=age)
    given = {"id": f"text_{number}", "response_id": f"resp_{number}", "finished_at": at.isoformat()}
    return record_of("text", "deltaloom", fields_of(**given | values), NOW)


def delivery(number: int = 1, **values: Any) -> Record:
    """Return the record of the delivery of an alert about the response with this number."""
    given = {
        "id": f"delivery_{number}",
        "type": "deltaloom.alert.delivery",
        "response_id": f"resp_{number}",
        "text": None,
        "raised_at": NOW.isoformat(),
    }
    return record_of("delivery", "deltaloom", fields_of(**given | values), NOW)
