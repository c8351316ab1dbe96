"""How much may be in hand at once."""

from __future__ import annotations

import asyncio

from service.alerts.sending.in_flight import Room


def test_as_many_messages_as_there_is_room_for() -> None:
    """Alerts would fill the memory, or the relay would stop reading for good."""
    room = Room(messages=2, size=100)
    full: list[bool] = []
    for _ in range(3):
        room.enter(1)
        full.append(room.full)
    for _ in range(3):
        room.leave(1, 1)
        full.append(room.full)
    assert full == [False, True, True, True, False, False]


def test_as_many_bytes_as_there_is_room_for() -> None:
    """A few long texts would fill the memory."""
    room = Room(messages=10, size=100)
    full: list[bool] = []
    for size in (99, 1):
        room.enter(size)
        full.append(room.full)
    room.leave(2, 1)
    assert [*full, room.full] == [False, True, False]


async def test_who_waits_goes_on_when_there_is_room() -> None:
    """The relay would read on while it is full, or never again."""
    room = Room(messages=1, size=100)
    await room.wait()
    room.enter(1)
    waits = asyncio.create_task(room.wait())
    await asyncio.sleep(0)
    assert not waits.done()
    room.leave(1, 1)
    await waits
    room.enter(1)
    room.open()
    await room.wait()
