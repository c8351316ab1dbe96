"""Tests of who may ask for what, and of the headers of every answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from console import site
from console.page_files import HEADERS
from service.settings import SettingsError
from tests.console.running import console, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.console.running import Client

TOKEN = "a-token-of-32-characters-0123456"  # noqa: S105 - of a test
ANOTHER = "another-token-of-33-characters-01"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Return a file with the tokens of two users."""
    file = tmp_path / "tokens"
    file.write_text(f"ada:{TOKEN}\nbob:{ANOTHER}\n")
    return file


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"console_listen": "0.0.0.0:0"}, "without authentication"),
        ({"console_listen": "[::]:0"}, "without authentication"),
        ({"console_listen": "192.0.2.1:0"}, "without authentication"),
        ({"console_token_file": "tokens", "console_user_header": "X-User"}, "set one of them"),
        ({"console_base_path": "/a b/"}, "a path like"),
        ({"console_base_path": "/../"}, "a path like"),
        ({"console_origin": "console.example.com"}, "scheme and host"),
        ({"console_trusted_proxies": "everybody"}, "addresses or networks"),
        ({"console_user_header": "X User"}, "name of a header"),
        ({"console_trace_url": "javascript:alert('{trace_id}')"}, "pattern"),
    ],
)
def test_unsafe_settings_are_refused(given: dict[str, str], says: str) -> None:
    """A mistake does not serve texts to a network."""
    with pytest.raises(ValueError, match=says):
        settings_of(**given)


@pytest.mark.parametrize(
    "content",
    ["", "short", f"ada:{TOKEN}\nada:{ANOTHER}", f"ada:{TOKEN}\nbob:{TOKEN}", f":{TOKEN}", "ada:to ken" * 3],
)
async def test_unsafe_tokens_are_refused(tmp_path: Path, content: str) -> None:
    """A token that can be guessed or is nobody's stops the start; the error does not quote it."""
    file = tmp_path / "tokens"
    file.write_text(content)
    with pytest.raises(SettingsError) as error:
        async with console(console_token_file=file):
            pass
    assert TOKEN not in str(error.value)


async def test_only_names_of_this_machine_are_answered_without_authentication() -> None:
    """A site that makes its own name an address of this machine reads nothing (DNS rebinding)."""
    async with console() as client:
        for host in ("127.0.0.1:80", "localhost", "LOCALHOST:1", "[::1]:9"):
            assert await client.status("api/me", headers={"Host": host}) == 200, host
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "evil.example:80",
            "localhost@evil",
            "[::1",
            "",
        ):
            assert await client.status("api/me", headers={"Host": host}) == 403, host


async def test_other_sites_may_not_ask(tokens: Path) -> None:
    """A page of another site neither reads nor acts, although the browser sends the cookie's rights."""
    async with console(console_token_file=tokens) as client:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert await client.status("api/me", headers=bearer) == 200
        for site in ("cross-site", "same-site"):
            assert await client.status("api/me", headers={**bearer, "Sec-Fetch-Site": site}) == 403
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{client.app.port + 1}", "http://["):
            assert await client.status("api/me", headers={**bearer, "Origin": origin}) == 403, origin
            status, _ = await client.act("api/session", {"token": TOKEN}, Origin=origin)
            assert status == 403
        no_origin = await client.status("api/session", "POST", json={"token": TOKEN})
        form = await client.status("api/session", "POST", data="token=x", headers={"Origin": _origin(client)})
        assert (no_origin, form) == (403, 415)


async def test_a_token_begins_a_session_and_the_session_ends(tokens: Path) -> None:
    """The cookie is one that scripts and other sites cannot use, names the user, and can be ended."""
    async with console(
        console_token_file=tokens, console_base_path="/deltaloom", console_origin="https://c.example"
    ) as client:
        origin = {"Origin": "https://c.example"}
        assert await client.status("api/me") == 401
        status, _ = await client.act("api/session", {"token": f" {ANOTHER}\n"}, **origin)
        assert status == 204
        async with client.session.post(
            client.url("api/session"), json={"token": ANOTHER}, headers=origin
        ) as answer:
            cookie = answer.headers["Set-Cookie"]
        for part in ("HttpOnly", "SameSite=Strict", "Secure", "Path=/deltaloom/", "Max-Age=43200"):
            assert part in cookie
        value = cookie.partition(";")[0]
        me = await client.json("api/me", headers={"Cookie": value})
        assert me["user"] == "bob"
        name, _, session = value.partition("=")
        expires, _, digest = session.partition(".")
        for wrong in (f"{int(expires) + 1}.{digest}", f"1.{digest}", f"{expires}.", "x", "9" * 500, ""):
            assert await client.status("api/me", headers={"Cookie": f"{name}={wrong}"}) == 401, wrong
        async with client.session.delete(client.url("api/session"), json={}, headers=origin) as answer:
            assert "Max-Age=0" in answer.headers["Set-Cookie"]


async def test_wrong_tokens_are_slowed_down(tokens: Path) -> None:
    """Trying tokens by the thousand takes long; the error has no hint."""
    async with console(console_token_file=tokens) as client:
        seen = [
            await client.status("api/me", headers={"Authorization": f"Bearer {TOKEN[:-1]}{n}"})
            for n in range(7, 10)
        ]
        assert seen == [401] * 3
        statuses = [(await client.act("api/session", {"token": str(n)}))[0] for n in range(9)]
        assert statuses == [401] * 7 + [429] * 2


async def test_a_token_that_no_utf8_can_encode_is_wrong(tokens: Path) -> None:
    """JSON can name half a character: that is a wrong token, not an error of the console."""
    async with console(console_token_file=tokens) as client:
        status, _ = await client.act("api/session", {"token": "\ud800"})
        assert status == 401


async def test_a_body_that_is_not_compressed_as_it_says_is_refused(tokens: Path) -> None:
    """A wrong Content-Encoding is a fault of the client, not an error of the console."""
    async with console(console_token_file=tokens) as client:
        headers = {"Origin": _origin(client), "Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert await client.status("api/session", "POST", data=b"xxxxx", headers=headers) == 400


async def test_a_body_that_does_not_come_is_not_waited_for(
    tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without a token cannot hold connections by sending its body a byte at a time."""
    monkeypatch.setattr(site, "BODY_SECONDS", 0.05)
    async with console(console_token_file=tokens) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.app.port)
        writer.write(
            b"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
            await reader.read()  # until it is closed
        writer.close()


async def test_only_a_trusted_proxy_names_users() -> None:
    """A client that reaches the console beside its proxy cannot say who it is."""
    async with console(console_user_header="X-User") as client:
        assert (await client.json("api/me", headers={"X-User": "ada"}))["user"] == "ada"
        assert await client.status("api/me") == 401
        assert await client.status("api/me", headers=[("X-User", "ada"), ("X-User", "root")]) == 401
        assert await client.status("api/me", headers={"X-User": "a" * 300}) == 401
    async with console(console_user_header="X-User", console_trusted_proxies="192.0.2.0/24") as client:
        assert await client.status("api/me", headers={"X-User": "ada"}) == 403


async def test_every_answer_has_the_headers(tmp_path: Path, redis_url: str, prefix: str) -> None:
    """Foreign code runs with no answer: a file, an error, a stream, or the answer to garbage."""
    (tmp_path / "app.js").write_text("export {}")
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "secret.key").write_text("x")
    async with console(
        static=tmp_path, redis_url=redis_url, prefix=prefix, console_base_path="/b/"
    ) as client:
        for path, status in (
            ("", 200),
            ("static/app.js", 200),
            ("static/secret.key", 404),
            ("static/../console_app.py", 404),
            ("static/%2e%2e/console_app.py", 404),
            ("static/%2fetc/passwd", 404),
            ("api/me", 200),
            ("api/health", 200),
            ("api/nothing", 404),
            ("api/me?x=1", 400),
            ("api/responses/%00", 404),
            ("api/now?" + "a" * 20_000, 414),
        ):
            async with client.session.get(client.url(path)) as answer:
                assert answer.status == status or (status == 414 and answer.status == 400), path
                assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
        async with client.session.get(client.url("static/app.js")) as answer:
            assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
            etag = answer.headers["ETag"]
        assert await client.status("static/app.js", headers={"If-None-Match": etag}) == 304
        assert await client.status("", "POST") == 405
        assert await client.status("../elsewhere") == 404
        async with client.session.get(
            f"http://127.0.0.1:{client.app.port}/b", allow_redirects=False
        ) as answer:
            assert (answer.status, answer.headers["Location"]) == (308, "/b/")
        async with client.watching() as page:
            assert {name: page.answer.headers[name] for name in HEADERS} == HEADERS
        reader, writer = await asyncio.open_connection("127.0.0.1", client.app.port)
        writer.write(b"GET / HTTP/1.1\r\nBad Header: <script>\r\n\r\n")
        garbage = await reader.read()
        writer.close()
        assert garbage.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
        assert b"<script>" not in garbage
        for name, value in HEADERS.items():
            assert f"{name}: {value}".encode() in garbage


def _origin(client: Client) -> str:
    return str(client.url("").origin())
