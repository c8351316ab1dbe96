"""Where Redis is, as one URL says it."""

from __future__ import annotations

import re

import pytest

from service.address import Address, Mode


@pytest.mark.parametrize(
    "url", ["redis://h:1/2?db=3", "rediss://u:p@h", "unix:///run/redis.sock", "redis://"]
)
def test_one_server(url: str) -> None:
    """What redis-py reads of an URL would change on the way to it."""
    assert Address.parse(url) == Address("standalone", (url,))


@pytest.mark.parametrize(
    ("url", "mode", "urls"),
    [
        ("redis+cluster://a:7000,b", None, ["redis://a:7000/0", "redis://b:6379/0"]),
        ("redis://a:7000,b", "cluster", ["redis://a:7000/0", "redis://b:6379/0"]),
        ("redis+cluster://a", "cluster", ["redis://a:6379/0"]),
        ("rediss+cluster://u:p@a,[::1]:7/0", None, ["rediss://u:p@a:6379/0", "rediss://u:p@[::1]:7/0"]),
        ("redis+cluster://a?socket_timeout=1", None, ["redis://a:6379/0?socket_timeout=1"]),
        ("redis+cluster://a?client_name=", None, ["redis://a:6379/0?client_name="]),
    ],
)
def test_cluster(url: str, mode: Mode | None, urls: list[str]) -> None:
    """A cluster could not be named, or only by the node that happens to be away."""
    assert Address.parse(url, mode) == Address("cluster", tuple(urls))


def test_sentinels() -> None:
    """The master would be looked for by another name, at another port, or without a password."""
    address = Address.parse("redis+sentinel://u:p@a,b:1/loom/3?sentinel_password=s&socket_timeout=1")
    assert address.mode == "sentinel"
    assert address.hosts == [("a", 26379), ("b", 1)]
    assert address.urls[0] == "redis://u:p@a:26379/3?socket_timeout=1"
    assert (address.service, address.sentinel_login) == ("loom", {"password": "s"})
    assert Address.parse("redis://a/loom", "sentinel").urls == ("redis://a:26379/0",)


@pytest.mark.parametrize(
    ("url", "mode", "says"),
    [
        ("http://a", None, "an URL that starts with redis://"),
        ("redis+other://a", None, "an URL that starts with redis://"),
        ("unix+cluster://a", None, "an URL that starts with redis://"),
        ("redis://a,b", None, "one host"),
        ("redis+cluster://a,,b", None, "a host before and after each comma"),
        ("redis+cluster://a:x", None, "a port from 0 to 65535"),
        ("redis+cluster://a/1", None, "no database"),
        ("redis+cluster://a", "sentinel", "an URL that does not say +cluster"),
        ("redis+cluster://a", "standalone", "an URL that does not say +cluster"),
        ("unix:///run/redis.sock", "cluster", "a socket is one server"),
        ("redis+sentinel://a", None, "the name under which the sentinels know the master"),
        ("redis+sentinel://a/loom/x", None, "the name under which the sentinels know the master"),
    ],
)
def test_what_cannot_be_read(url: str, mode: Mode | None, says: str) -> None:
    """A mistyped URL would end in a connection to somewhere else, or in a traceback."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Address.parse(url, mode)


def test_secrets_are_not_in_what_is_logged() -> None:
    """A password would be in a traceback."""
    assert "s3cret" not in repr(Address.parse("redis+sentinel://:s3cret@a/x?sentinel_password=s3cret"))
