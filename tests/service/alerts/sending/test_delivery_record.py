"""Test the records of ended deliveries."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from handlers.core.identity import EntryId
from service.alerts.sending.delivery_record import AcceptedAlert, delivery_of
from service.ports.outbox import EntryRef

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize("ms", [0, 1_777_000_000_000, 2**64 - 1])
def test_unreadable_entry_may_have_any_id(ms: int) -> None:
    """Record an entry of another program, whose id may be far in the future. An error would end the relay."""
    alert = AcceptedAlert.unreadable(EntryRef("deltaloom:alerts", EntryId(ms, 0)))
    delivery = delivery_of(alert, "here", "unreadable", "it is not JSON", 0, NOW)
    assert delivery.entry_id == f"{ms}-0"
    assert delivery.latency_ms == max(round(NOW.timestamp() * 1000) - ms, 0)
