"""Parse Redis addresses from a URL: one server, a cluster, or a master behind sentinels."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import parse_url

from deltaloom.address import _OPTIONS, _SENTINEL_OPTIONS, _TLS_OPTIONS, Address, Mode
from service.storage.client.connection import blocking_client_of, client_of

PASSWORDS = st.text("ZQ#/?@:%[]&=+ é½\u2100\n", min_size=1, max_size=12).map("ZQX{}XQZ".format)


@pytest.mark.parametrize(
    "url", ["redis://h:1/2?db=3", "rediss://u:p@h", "unix:///run/redis.sock", "unix:///run/a@b", "redis://"]
)
def test_one_server(url: str) -> None:
    """Keep the URL of a single server unchanged. Otherwise redis-py's options would be altered."""
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
    """Accept several nodes for a cluster. Otherwise one node that is down would prevent the connection."""
    assert Address.parse(url, mode) == Address("cluster", tuple(urls))


def test_sentinels() -> None:
    """Read the master's name, ports and both logins from a sentinel URL, with defaults for missing ports."""
    address = Address.parse("redis+sentinel://u:p@a,b:1/loom/3?sentinel_password=s&socket_timeout=1")
    assert address.mode == "sentinel"
    assert address.hosts == [("a", 26379), ("b", 1)]
    assert address.urls[0] == "redis://u:p@a:26379/3?socket_timeout=1"
    assert (address.service, address.sentinel_login) == ("loom", {"password": "s"})
    assert Address.parse("redis://a/loom", "sentinel").urls == ("redis://a:26379/0",)


@pytest.mark.parametrize(
    ("url", "mode", "says"),
    [
        ("http://a", None, "a URL that starts with redis://"),
        ("redis+other://a", None, "a URL that starts with redis://"),
        ("unix+cluster://a", None, "a URL that starts with redis://"),
        ("redis://a,b", None, "one host"),
        ("redis+cluster://a,,b", None, "a host before and after each comma"),
        ("redis+cluster://a:x", None, "a port from 0 to 65535"),
        ("redis+cluster://a/1", None, "no database"),
        ("redis+cluster://a", "sentinel", "a URL without +cluster"),
        ("redis+cluster://a", "standalone", "a URL without +cluster"),
        ("unix:///run/redis.sock", "cluster", "a URL with hosts"),
        ("redis+sentinel://a", None, "a URL with the name of the master"),
        ("redis+sentinel://a/loom/x", None, "a URL with the name of the master"),
        ("redis://a/b", None, "no path except the number of a database"),
        ("redis://a b", None, "a host of letters"),
        ("unix://run/redis.sock", None, "unix:///run/redis.sock"),
        ("unix://u:a@/b@/run/redis.sock", None, "/ as %2F"),
        ("redis://a?timeout=5", None, "no option 'timeout'; options are client_name, db, "),
        ("redis://a?decode_responses=true", None, "no option 'decode_responses'; "),
        ("redis://a?ssl_cert_reqs=none", None, "no option 'ssl_cert_reqs' without TLS (rediss://); "),
        ("redis://a?sentinel_password=s", None, "no option 'sentinel_password'; "),
        ("redis+cluster://a?retry_on_timeout=true", None, "no option 'retry_on_timeout'; "),
    ],
)
def test_invalid_urls_are_refused(url: str, mode: Mode | None, says: str) -> None:
    """Reject a mistyped URL with its remedy. Otherwise it would connect elsewhere or end in a traceback."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Address.parse(url, mode)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("redis://{}@h", "standalone"),
        ("redis://user:{}@h:1/2", "standalone"),
        ("rediss://:{}@[::1]:1?db=1", "standalone"),
        ("redis+cluster://u:{}@a,b", "cluster"),
        ("redis+sentinel://u:{}@a,b/loom", "sentinel"),
        ("unix://u:{}@/run/redis.sock", "standalone"),
    ],
)
@given(password=PASSWORDS)
def test_a_password_of_any_characters(url: str, mode: Mode, password: str) -> None:
    """Keep a percent-encoded password, and show no part of an unencoded one in errors or host names."""
    encoded = Address.parse(url.format(quote(password, safe="")))
    assert encoded.mode == mode
    name = "username" if url.startswith("redis://{}") else "password"
    assert {parse_url(each)[name] for each in encoded.urls} == {password}  # type: ignore[no-untyped-call]
    shown = [_error_of(url.format(password))]
    if not shown[0]:
        parts = map(urlsplit, Address.parse(url.format(password)).urls)
        shown = [f"{each.hostname}{each.path}{each.query}{each.fragment}" for each in parts]
    assert not re.search("ZQ|QZ", "".join(shown), re.IGNORECASE)


def _error_of(url: str) -> str:
    try:
        Address.parse(url)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("url", "name"),
    [
        *((url, name) for url in ("redis://h?", "redis+cluster://h?") for name in sorted(_OPTIONS)),
        *((url, name) for url in ("rediss://h?", "rediss+cluster://h?") for name in sorted(_TLS_OPTIONS)),
        *(("redis+sentinel://h/m?", name) for name in (*sorted(_OPTIONS), *_SENTINEL_OPTIONS)),
        *(("rediss://h?", name) for name in ("ssl_ca_path", "ssl_password", "retry_on_timeout")),
    ],
)
async def test_options_are_taken_by_every_client(url: str, name: str) -> None:
    """Accept in the URL only options that all of the mode's clients accept.

    Otherwise the client would raise.
    """
    values = {"protocol": "3", "ssl_cert_reqs": "none", "ssl_min_version": "771"}
    address = Address.parse(f"{url}{name}={values.get(name, '1')}")
    await client_of(address).aclose()
    if address.mode != "cluster":  # a blocking cluster client connects when it is made
        client = blocking_client_of(address)
        client.connection_pool.make_connection()
        client.close()


def test_secrets_are_not_in_the_representation() -> None:
    """Keep passwords out of the representation of an address. Otherwise a traceback would show them."""
    assert "s3cret" not in repr(Address.parse("redis+sentinel://:s3cret@a/x?sentinel_password=s3cret"))
