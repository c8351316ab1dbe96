"""Test the order in which the observer reports outputs."""

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


class RecordingVerdict:
    """A verdict that records its calls."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def text(self, message: Message) -> None:
        """Record a text."""
        self.order.append(f"text {message.fields['n']}")

    def alert(self, message: Message) -> None:
        """Record an alert."""
        self.order.append(f"alert {message.fields['n']}")

    def raised(self, _fields: Any) -> None:
        """Ignore an alert that is to be delivered."""


async def test_an_alert_is_never_shown_before_its_text(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report a text before its alert. Otherwise the bench would report correct alerts as wrong."""
    monkeypatch.setattr(observer, "_PAGE", 10)
    names, recorder = StreamNames(prefix), RecordingVerdict()

    class Server:
        @asynccontextmanager
        async def client(self) -> AsyncIterator[Redis]:
            yield redis

    for number in range(50):
        for stream in (names.assembled, names.alerts)[: 2 if number % 10 == 0 else 1]:
            await redis.xadd(stream, {"__data__": json.dumps({"n": number})})
    watching: Any = Observer(Server(), names, recorder, [recorder])  # type: ignore[arg-type]
    await watching.drain()
    assert len(recorder.order) == watching.read == 55
    for number in range(0, 50, 10):
        assert recorder.order.index(f"text {number}") < recorder.order.index(f"alert {number}")
    await redis.delete(names.assembled, names.alerts)
