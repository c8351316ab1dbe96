"""Where the server is, said without secrets."""

from __future__ import annotations

import pytest

from service.cli.connection import address, read_settings
from service.settings import SettingsError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://user:s3cret@host:1/2?password=s3cret", "rediss://host:1/2"),
        ("redis://:s3c@ret@host", "redis://host"),
        ("unix:///run/redis.sock?password=s3cret", "unix:///run/redis.sock"),
    ],
)
def test_address(url: str, shown: str) -> None:
    """A password would stand in a terminal, a log or a bug report."""
    assert address(url) == shown


@pytest.mark.parametrize("url", ["redis://host:port", "redis://host:99999"])
def test_an_url_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A wrong URL would end in a traceback, which shows the password."""
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^REDIS_URL=\(not shown\) is not allowed: "):
        read_settings()
