"""Test an HTTP POST against servers with all kinds of failures."""

from __future__ import annotations

import asyncio
import ssl
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.http import HttpClient, retry_after, verdict_of
from service.alerts.destinations.options import HttpOptions
from tests import certificates
from tests.receivers import Behaviour, dripping, echo, endless, hang, late, raw, receiving, status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.receivers import Receiver

SECRET = "/services/T000/B000/not-a-real-one"  # noqa: S105 - made up
LOOPBACK = ("127.0.0.0/8",)


async def post(receiver: Receiver | str, *, texts: tuple[str, ...] = (), **options: Any) -> Outcome:
    """Post once with a new client."""
    options = {"allow_addresses": LOOPBACK, "timeout": 5, **options}
    client = HttpClient(HttpOptions.model_validate(options))
    url = receiver if isinstance(receiver, str) else receiver.url + SECRET
    try:
        return await client.post(url, b"{}", {"Content-Type": "application/json"}, texts)
    finally:
        await client.aclose()


R, NO_ANSWER = Verdict.RETRY, "the connection was closed without an answer"
ANSWERS: dict[str, tuple[Behaviour, Verdict, str]] = {
    "200": (status(200, "ok"), Verdict.DELIVERED, "200 OK: ok"),
    "202": (status(202), Verdict.DELIVERED, "202 Accepted"),
    "400": (status(400, "invalid_payload"), Verdict.REFUSED, "400 Bad Request: invalid_payload"),
    "401": (status(401), Verdict.REFUSED, "401 Unauthorized"),
    "404": (status(404, "no_service"), Verdict.REFUSED, "404 Not Found: no_service"),
    "408": (status(408), R, "408 Request Timeout"),
    "410": (status(410, "channel_is_archived"), Verdict.GONE, "410 Gone: channel_is_archived"),
    "425": (status(425), R, "425 Too Early"),
    "429": (status(429), R, "429 Too Many Requests"),
    "500": (status(500, "a\nlong\tstory "), R, "500 Internal Server Error: a long story"),
    "503": (status(503), R, "503 Service Unavailable"),
    "799": (raw(b"HTTP/1.1 799 Odd\r\ncontent-length: 0\r\n\r\n"), R, "799 (not in HTTP)"),
    "closed": (raw(b""), R, NO_ANSWER),
    "cut in the headers": (raw(b"HTTP/1.1 200 OK\r\nContent-Le"), R, NO_ANSWER),
    "cut in the body": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        Verdict.DELIVERED,
        "200 OK: half",
    ),
    "cut in the body of an error": (
        raw(b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nhalf"),
        R,
        "500 Internal Server Error: half",
    ),
    "another protocol": (raw(b"220 this is no web server\r\n\r\n"), R, "the answer is not HTTP"),
    "a header without end": (raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000), R, "the answer is not HTTP"),
}


@pytest.mark.parametrize(("behaviour", "verdict", "answer"), ANSWERS.values(), ids=ANSWERS)
async def test_answers_give_verdicts(behaviour: Behaviour, verdict: Verdict, answer: str) -> None:
    """Derive the verdict from the answer. Otherwise alerts would be lost, doubled, or retried forever."""
    async with receiving(behaviour) as receiver:
        outcome = await post(receiver)
    assert (outcome.verdict, outcome.answer) == (verdict, answer)


async def test_a_refused_connection_is_retried() -> None:
    """Retry a refused connection, as while a receiver restarts."""
    async with receiving() as receiver:
        unused_url = receiver.url
    outcome = await post(unused_url)
    assert outcome.verdict is Verdict.RETRY
    assert outcome.answer.startswith("no connection: ")


async def test_a_receiver_that_hangs_has_its_time() -> None:
    """Retry after the timeout. Otherwise a stuck receiver would block its destination."""
    async with receiving(hang) as receiver:
        outcome = await post(receiver, timeout=0.2)
    assert outcome == Outcome(Verdict.RETRY, "no answer in time")


async def test_an_answer_that_comes_too_late_is_lost() -> None:
    """Ignore a late answer. Otherwise it would be taken for the next request's answer."""
    may_answer = asyncio.Event()
    client = HttpClient(HttpOptions.model_validate({"allow_addresses": LOOPBACK, "timeout": 2}))
    async with receiving(late(may_answer), status(500, "second")) as receiver:
        first = await client.post(receiver.url, b"1", {})
        may_answer.set()
        second = await client.post(receiver.url, b"2", {})
        await client.aclose()
    assert (first.verdict, second.answer) == (Verdict.RETRY, "500 Internal Server Error: second")
    assert [each.body for each in receiver.received] == [b"1", b"2"]


@pytest.mark.parametrize("behaviour", [endless(200), dripping(200)], ids=["endless", "dripping"])
async def test_a_body_without_end_does_not_hold_a_delivery(behaviour: Behaviour) -> None:
    """Limit the bytes and the time of a body. Otherwise a receiver could fill the memory."""
    async with receiving(behaviour) as receiver:
        outcome = await asyncio.wait_for(post(receiver, timeout=60), 30)
    assert outcome.verdict is Verdict.DELIVERED
    assert len(outcome.answer) < 250


async def test_a_redirect_is_not_followed() -> None:
    """Follow no redirect. Otherwise a receiver could forward alerts to another host."""
    async with (
        receiving() as elsewhere,
        receiving(status(302, "secret place", Location=elsewhere.url)) as receiver,
    ):
        outcome = await post(receiver)
    assert outcome == Outcome(Verdict.RETRY, "302 Found: redirects are not followed")
    assert elsewhere.received == []


async def test_the_answer_holds_no_secret_and_no_text() -> None:
    """Keep the URL, secrets and the text out of the logged answer."""
    async with receiving(echo) as receiver:
        url = await post(receiver)
        client = HttpClient(HttpOptions(allow_addresses=LOOPBACK), ["hush-hush"])  # type: ignore[arg-type]  # strings, as in a table
        text = 'Something "private" \N{SNOWMAN} that a model said.'
        quoted = await client.post(receiver.url, f'{{"text": "{text}"}}'.encode(), {}, [text])
        secret = await client.post(receiver.url, b"my hush-hush is", {}, [text])
        await client.aclose()
    assert "T000" not in url.answer
    assert url.answer.startswith("400 Bad Request: …")
    assert quoted.answer == "400 Bad Request: (the answer repeats the text, and is left out)"
    assert secret.answer == "400 Bad Request: / my … is"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://127.0.0.1:{port}/", "127.0.0.1 is loopback"),
        ("http://localhost:{port}/", "loopback"),
        ("http://0.0.0.0:{port}/", "0.0.0.0 is this host"),
        ("http://[::ffff:127.0.0.1]:{port}/", "127.0.0.1 is loopback"),
        ("http://10.0.0.1:{port}/", "10.0.0.1 is private"),
        ("http://169.254.169.254:{port}/", "169.254.169.254 is link-local"),
    ],
)
async def test_no_connection_is_made_to_an_address_that_is_not_public(url: str, what: str) -> None:
    """Refuse non-public addresses. Otherwise a configured URL could reach the internal network."""
    async with receiving() as receiver:
        outcome = await post(url.format(port=receiver.port), allow_addresses=["192.0.2.0/24"])
    assert outcome.verdict is Verdict.RETRY
    assert what in outcome.answer
    assert "allow_addresses does not name it" in outcome.answer
    assert receiver.received == []


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001", "127.0.0.1%00.example"])
async def test_odd_notations_of_an_address_are_refused(host: str) -> None:
    """Refuse odd notations that some libraries read as 127.0.0.1."""
    async with receiving() as receiver:
        outcome = await post(f"http://{host}:{receiver.port}/", allow_addresses=[])
    assert outcome.verdict is Verdict.RETRY
    assert receiver.received == []


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore proxy variables. Otherwise a proxy would bypass the address check."""
    async with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        outcome = await post("http://10.0.0.1/")
    assert "10.0.0.1 is private" in outcome.answer
    assert proxy.received == []


async def test_a_certificate_is_verified(tmp_path: Path) -> None:
    """Verify certificates. Otherwise alerts could be read on their way."""
    authority = certificates.make(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.certificate, authority.key)
    async with receiving(tls=tls) as receiver:
        unknown = await post(receiver)
        known = await post(receiver, ca_file=authority.certificate)
        other_name = await post(
            receiver.url.replace("127.0.0.1", "localhost"),
            ca_file=authority.certificate,
            allow_addresses=[*LOOPBACK, "::1"],
        )
    assert unknown.verdict is other_name.verdict is Verdict.RETRY
    assert unknown.answer.startswith("its certificate is not valid: self")
    assert other_name.answer.startswith("its certificate is not valid: Hostname mismatch")
    assert known.verdict is Verdict.DELIVERED


def test_a_missing_ca_file_is_refused(tmp_path: Path) -> None:
    """Report a missing CA file at start, not with the first alert."""
    with pytest.raises(DestinationError, match=r"ca_file=.*nothing\.pem"):
        HttpClient(HttpOptions(ca_file=tmp_path / "nothing.pem"))


async def test_retry_after_is_honoured() -> None:
    """Return the requested pause of a failed answer."""
    async with receiving(
        status(429, Retry_After="7"), status(503, Retry_After="x"), status(200, Retry_After="7")
    ) as r:
        waits = [(await post(r)).retry_after for _ in range(3)]
    assert waits == [7, None, None]


@pytest.mark.parametrize("requested", ["86400", "9" * 4000, "Fri, 31 Dec 9999 23:59:59 GMT", "3999999999"])
async def test_no_receiver_pauses_longer_than_the_setting(requested: str) -> None:
    """Limit the requested pause. Otherwise one wrong header would delay all alerts for a day."""
    async with receiving(status(503, Retry_After=requested)) as r:
        default = await post(r)
        shorter = await post(r, max_retry_after=60)
    assert (default.retry_after, shorter.retry_after) == (300, 60)


def test_retry_after_as_a_date() -> None:
    """Read a date in Retry-After."""
    wait = retry_after(format_datetime(datetime.fromtimestamp(time.time() + 90, UTC), usegmt=True))
    assert wait is not None
    assert 80 < wait <= 90
    assert retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0


def test_retry_after_as_seconds_since_1970() -> None:
    """Read a Unix time in Retry-After, which would otherwise be a pause of fifty years."""
    wait = retry_after(str(int(time.time()) + 90))
    assert wait is not None
    assert 80 < wait <= 90
    assert retry_after("1700000000") == 0


@pytest.mark.parametrize(
    "header",
    ["", " ", "-5", "+5", "nan", "inf", "1e5", "0x10", "5, 7", "٣", "soon", "Sun, 06 Nov , 08:49:37 GMT"],
)
def test_invalid_retry_after_is_ignored(header: str) -> None:
    """Ignore an invalid Retry-After."""
    assert retry_after(header) is None


@given(st.text(max_size=60) | st.text("0123456789.,:+- SunNovGMT", max_size=40))
def test_any_retry_after_is_a_number_or_nothing(header: str) -> None:
    """Return None or a non-negative number for any header. Otherwise an odd one could end the relay."""
    wait = retry_after(header)
    assert wait is None or wait >= 0


@given(st.integers(100, 999))
def test_every_status_has_one_verdict(code: int) -> None:
    """Treat 410 and other 4xx as final, except 408, 425 and 429."""
    final = code // 100 == 4 and code not in (408, 425, 429)
    expected = Verdict.GONE if code == 410 else Verdict.REFUSED if final else Verdict.RETRY
    assert verdict_of(code) is (Verdict.DELIVERED if code // 100 == 2 else expected)
