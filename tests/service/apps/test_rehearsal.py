"""Test the remedies of a failed rehearsal; the rehearsal itself runs on a server."""

from __future__ import annotations

import pytest

from service.apps.rehearsal import user_of
from service.settings import Settings


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("redis://localhost", "default"),
        ("redis://:secret@localhost", "default"),
        ("redis://worker%40eu:secret@localhost", "worker@eu"),
        ("redis://localhost?username=worker&password=secret", "worker"),
        ("unix:///run/redis.sock?username=worker", "worker"),
        ("redis+cluster://worker:secret@a,b", "worker"),
    ],
)
def test_user_is_the_one_that_redis_knows(url: str, user: str) -> None:
    """Name the user as the server knows it. The remedy would otherwise grant rights to another one."""
    assert user_of(Settings(redis_url=url, partitions=2)) == user
