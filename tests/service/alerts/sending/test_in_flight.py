"""Test the limit on messages in flight."""

from __future__ import annotations

import asyncio

from service.alerts.sending.in_flight import InFlightLimit


def test_number_of_messages_is_limited() -> None:
    """Limit the number of messages, and open again when some have left."""
    limit = InFlightLimit(messages=2, size=100)
    full: list[bool] = []
    for _ in range(3):
        limit.enter(1)
        full.append(limit.full)
    for _ in range(3):
        limit.leave(1, 1)
        full.append(limit.full)
    assert full == [False, True, True, True, False, False]


def test_bytes_of_messages_are_limited() -> None:
    """Limit the bytes of messages. Otherwise a few long texts would fill the memory."""
    limit = InFlightLimit(messages=10, size=100)
    full: list[bool] = []
    for size in (99, 1):
        limit.enter(size)
        full.append(limit.full)
    limit.leave(2, 1)
    assert [*full, limit.full] == [False, True, False]


async def test_waiting_ends_when_a_message_leaves() -> None:
    """Wait until a message has left, or until the limit is lifted."""
    limit = InFlightLimit(messages=1, size=100)
    await limit.wait()
    limit.enter(1)
    waits = asyncio.create_task(limit.wait())
    await asyncio.sleep(0)
    assert not waits.done()
    limit.leave(1, 1)
    await waits
    limit.enter(1)
    limit.lift()
    await limit.wait()
