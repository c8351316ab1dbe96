"""What the observer tells the verdict, and in which order."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from chaos import observer
from chaos.observer import Observer
from deltaloom import StreamNames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from redis.asyncio import Redis

    from chaos.verdict import Message


class Told:
    """In place of the verdict and the deliveries: what they were told."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def text(self, message: Message) -> None:
        """A text came out."""
        self.order.append(f"text {message.fields['n']}")

    def alert(self, message: Message) -> None:
        """An alert did."""
        self.order.append(f"alert {message.fields['n']}")

    def raised(self, _fields: Any) -> None:
        """An alert is to be delivered."""


async def test_an_alert_is_never_shown_before_its_text(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind many texts and few alerts, the bench would call right alerts wrong."""
    monkeypatch.setattr(observer, "_PAGE", 10)
    names, told = StreamNames(prefix), Told()

    class Server:
        @asynccontextmanager
        async def client(self) -> AsyncIterator[Redis]:
            yield redis

    for number in range(50):
        for stream in (names.assembled, names.alerts)[: 2 if number % 10 == 0 else 1]:
            await redis.xadd(stream, {"__data__": json.dumps({"n": number})})
    watching: Any = Observer(Server(), names, told, [told])  # type: ignore[arg-type]
    await watching.drain()
    assert len(told.order) == watching.read == 55
    for number in range(0, 50, 10):
        assert told.order.index(f"text {number}") < told.order.index(f"alert {number}")
    await redis.delete(names.assembled, names.alerts)
