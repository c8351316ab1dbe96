"""Fixtures of the fundamental tests."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deltaloom import StreamNames
from tests.fundamentals.loom import Loom
from tests.webhook_receiver import Receiver, receiving


@pytest.fixture
def loom(redis: Redis, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loom:
    """Return a deltaloom without any events, workers or relays yet."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return Loom(redis, redis_url, StreamNames(prefix), tmp_path)


@pytest.fixture
async def webhook() -> AsyncIterator[Receiver]:
    """Run a webhook that records what it receives."""
    async with receiving() as receiver:
        yield receiver
