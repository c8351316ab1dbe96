"""Test apprise with real HTTP and SMTP servers, and with addresses that it must not reach."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from deltaloom.messages import ModelFallback
from service.alerts.delivery import Verdict
from service.alerts.destinations.apprise_ import AppriseOptions
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.guard import guarded
from service.alerts.destinations.registry import create_destination
from tests.notifications import alert, digest, finished, notification
from tests.receivers import echo, hang, receiving, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.alerts.delivery import Destination, Notification, Outcome
    from tests.receivers import Receiver


@asynccontextmanager
async def by_apprise(url: str, **table: Any) -> AsyncIterator[Destination]:
    """Make a destination with this URL, and close it afterwards."""
    options = {"type": "apprise", "url_env": "URL", "allow_addresses": ["127.0.0.1"], **table}
    destination = create_destination("else", AppriseOptions.model_validate(options), {"URL": url})
    try:
        yield destination
    finally:
        await destination.aclose()


async def sent(
    receiver: Receiver, what: Notification, url: str = "json://{host}/hook/abcdefgh", **table: Any
) -> Outcome:
    """Send a notification with apprise's JSON webhook."""
    async with by_apprise(url.format(host=receiver.url.removeprefix("http://")), **table) as destination:
        return await destination.deliver(what)


async def test_a_message_is_what_a_person_reads() -> None:
    """Send a readable title and body."""
    async with receiving() as receiver:
        outcome = await sent(receiver, notification(test=True), link="https://console.example/{response_id}")
        ended = await sent(receiver, finished())
    assert outcome.verdict is ended.verdict is Verdict.DELIVERED
    first, second = (each.json for each in receiver.received)
    assert first["title"] == "[TEST] A model refuses · self-harm · gpt-4o · tenant acme"
    assert (first["type"], second["type"]) == ("failure", "success")
    for line in (
        "Severity: critical",
        "I'm sorry, but I can't help with that.",
        "https://console.example/resp_1",
    ):
        assert line in first["message"]


HOSTILE = (
    "@everyone @Here @room @joe joe@evil.example <@1> <!channel> <https://evil.example|Win> "
    "[Win](HTTPS://evil) ![](ftp://evil) [Win][1] [1]: "
    "www.evil.example WWW.evil mailto:joe javascript:alert(1) <b>bold</b>"
)
LIVE = re.compile(r"@\w|<[^\s\u200b]|\][(\[:]|://|mailto:\w|javascript:\w|www\.\w", re.IGNORECASE)
NAMES = [
    name
    for name, value in alert()
    if name not in {"rate", "fallback"} and (value is None or isinstance(value, str))
]
"""Fields of an alert that a model, a producer or a provider may choose."""


@pytest.mark.parametrize("phase", ["one", "digest"])
async def test_mentions_and_links_are_neutralized(phase: str) -> None:
    """Neutralize mentions and links. Otherwise a tenant's name could notify a whole channel."""
    change = dict.fromkeys(("from_model", "to_model", "trigger"), HOSTILE)
    hostile = {**dict.fromkeys(NAMES, HOSTILE), "fallback": ModelFallback(**change)}
    of = alert().model_copy(update=hostile)
    what = replace(notification(of), id=HOSTILE, category=HOSTILE, rule=HOSTILE, severity=HOSTILE)
    if phase == "digest":
        several = digest(what).digest
        assert several
        what = replace(what, digest=replace(several, counts=[(HOSTILE, 12)]))
    link = "https://console.example/?of={response_id}&by={tenant}"
    async with receiving() as receiver:
        await sent(receiver, what, link=link)
    (received,) = receiver.received
    assert received.json["message"].count("https://console.example/?of=") == 1
    for written in (received.json["title"], received.json["message"]):
        assert LIVE.findall(re.sub(r"https://console\.example\S+", "", written)) == []
        assert "everyone" in written


async def test_a_digest_is_one_message() -> None:
    """Send a digest as one message with its counts."""
    async with receiving() as receiver:
        await sent(receiver, digest(notification(), notification(alert(text="Another."))))
    (received,) = receiver.received
    assert received.json["title"] == "12 similar alerts · self-harm"
    assert "9 times refusal.opened · gpt-4o" in received.json["message"]
    assert "Another." in received.json["message"]


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (400, Verdict.REFUSED),
        (404, Verdict.REFUSED),
        (410, Verdict.GONE),
        (429, Verdict.RETRY),
        (500, Verdict.RETRY),
    ],
)
async def test_the_verdict_is_by_the_status(code: int, verdict: Verdict) -> None:
    """Derive the verdict from the HTTP status. Otherwise a refused alert would be retried for a day."""
    async with receiving(status(code)) as receiver:
        outcome = await sent(receiver, notification())
    assert outcome.verdict is verdict
    assert f"error={code}" in outcome.answer
    assert "abcdefgh" not in outcome.answer


async def test_a_hanging_service_is_retried() -> None:
    """Give up after the timeout. Otherwise a service that hangs would block the relay."""
    async with receiving(hang) as receiver:
        outcome = await sent(receiver, notification(), url="json://{host}/?rto=0.5&cto=0.5", timeout=0.2)
        assert (outcome.verdict, outcome.answer) == (Verdict.RETRY, "not sent within 0.2 s")
        outcome = await sent(receiver, notification(), url="json://{host}/?rto=0.2")
    assert outcome.verdict is Verdict.RETRY


async def test_waiting_for_other_messages_does_not_count() -> None:
    """Exclude the wait for other messages from the timeout.

    Otherwise the last of several would always fail.
    """
    async with (
        receiving(slow) as receiver,
        by_apprise(receiver.url.replace("http", "json"), timeout=3) as one,
    ):
        outcomes = await asyncio.gather(*(one.deliver(notification()) for _ in range(4)))
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] * 4


async def slow(_request: web.Request) -> web.Response:
    """Answer within the timeout of one message, but not of four in sequence."""
    await asyncio.sleep(0.9)
    return web.Response()


async def test_a_failure_can_be_sent_again() -> None:
    """Send again after a failure. Otherwise apprise would drop the attempt as a duplicate."""
    async with receiving(status(503), status(200)) as receiver:
        url = receiver.url.replace("http", "json")
        async with by_apprise(url) as destination:
            verdicts = [(await destination.deliver(notification())).verdict for _ in range(3)]
    assert verdicts == [Verdict.RETRY, Verdict.DELIVERED, Verdict.DELIVERED]
    assert len(receiver.received) == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_address_that_is_not_public_is_not_connected_to(host: str) -> None:
    """Refuse non-public addresses for apprise's own connections."""
    async with receiving() as receiver:
        outcome = await sent(
            receiver, notification(), f"json://{host}:{receiver.port}/", allow_addresses=["192.0.2.1"]
        )
    assert outcome.verdict is Verdict.RETRY
    assert "is loopback; allow_addresses does not name it" in outcome.answer
    assert receiver.received == []


async def test_a_redirect_is_not_followed_whatever_the_url_says() -> None:
    """Follow no redirect. Otherwise a receiver could forward alerts to another host."""
    async with receiving() as elsewhere, receiving(status(307, Location=elsewhere.url)) as receiver:
        outcome = await sent(receiver, notification(), url="json://{host}/?redirect=yes")
    assert outcome.verdict is Verdict.RETRY
    assert elsewhere.received == []


async def test_an_answer_that_repeats_the_text_is_dropped() -> None:
    """Drop an answer that repeats the text, since texts must not be logged."""
    async with receiving(echo) as receiver:
        outcome = await sent(receiver, notification())
    assert "sorry" not in outcome.answer


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("carrier-pigeon://hunter2", "does not hold a URL that apprise knows"),
        ("xmpp://user:hunter2@example.com", "needs a package that is not installed"),
        ("jsons://user:hunter2@example.com/?verify=no", "certificates are always verified"),
    ],
)
def test_an_unusable_url_is_refused_without_showing_it(url: str, why: str) -> None:
    """Report an unusable URL at start, without showing its password."""
    options = AppriseOptions(type="apprise", url_env="ELSE")
    with pytest.raises(DestinationError, match=why) as error:
        create_destination("else", options, {"ELSE": url})
    assert "ELSE" in str(error.value)
    assert "hunter2" not in str(error.value)


async def test_a_mail_arrives() -> None:
    """Send a mail by SMTP, under the same address check."""
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        in_data = False
        while line := await reader.readline():
            lines.append(line)
            if in_data and line != b".\r\n":
                continue
            in_data = line[:4].upper() == b"DATA"
            writer.write(b"354 go on\r\n" if in_data else b"250 ok\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"mailto://127.0.0.1:{port}/?from=deltaloom@example.com&to=on-call@example.com&mode=insecure&format=text"
    async with server, by_apprise(url) as destination:
        outcome = await destination.deliver(notification())
    assert outcome.verdict is Verdict.DELIVERED, outcome.answer
    assert b"rcpt to:<on-call@example.com>\r\n" in [each.lower() for each in lines]
    async with by_apprise(url, allow_addresses=[]) as destination:
        outcome = await destination.deliver(notification())
    assert "127.0.0.1 is loopback" in outcome.answer


def test_inside_the_guard_nothing_else_gets_out() -> None:
    """Block threads, datagrams, names and local sockets.

    Otherwise a library could bypass the address check.
    """
    with guarded([]) as guard:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            pytest.raises(OSError, match="private"),
        ):
            datagrams.sendto(b"x", ("10.0.0.1", 9))
        with socket.socket() as named, pytest.raises(OSError, match="a name where"):
            named.connect(("localhost", 9))
        with socket.socket(socket.AF_UNIX) as local, pytest.raises(OSError, match="a socket of this machine"):
            local.connect("/nowhere")
        if sys.version_info >= (3, 12):
            with pytest.raises(OSError, match="a thread of its own"):
                threading.Thread(target=print).start()
    assert len(guard.refused) == (4 if sys.version_info >= (3, 12) else 3)
    with socket.socket() as free, pytest.raises(ConnectionRefusedError):
        free.connect(("127.0.0.1", 9))  # outside the guard, connections are not checked
