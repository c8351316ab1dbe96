"""Fixtures of the storage tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench import Bench

if TYPE_CHECKING:
    from redis.asyncio import Redis


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench with default settings."""
    return Bench(redis, prefix)
