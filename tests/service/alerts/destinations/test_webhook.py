"""Test signed POSTs by verifying them with the package `standardwebhooks` and the contract's model."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from deltaloom import ModerationAlert
from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.registry import create_destination
from service.alerts.destinations.secrets import from_file
from service.alerts.destinations.webhook import WebhookOptions
from tests.notifications import RAISED_AT, alert, digest, finished, notification
from tests.receivers import hang, late, raw, receiving, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.alerts.delivery import Destination, Notification
    from tests.receivers import Receiver

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
ENVIRONMENT = {"OLD": OLD, "NEW": NEW}


@asynccontextmanager
async def webhook(receiver: Receiver | str, **options: Any) -> AsyncIterator[Destination]:
    """Make a webhook destination for this receiver, and close it afterwards."""
    url = receiver if isinstance(receiver, str) else receiver.url
    table = {"url": f"{url}/alerts", "secret_env": "NEW", "allow_addresses": ["127.0.0.1"], "timeout": 5}
    table = {"type": "webhook", **table, **options}
    destination = create_destination("hook", WebhookOptions.model_validate(table), ENVIRONMENT)
    try:
        yield destination
    finally:
        await destination.aclose()


async def test_the_body_is_the_alert_and_the_signature_is_right() -> None:
    """Post the alert's JSON with a valid signature and the delivery's data."""
    sent = notification(alert(text="Nö. \N{SNOWMAN} \U0001f600 </script>"))
    async with receiving() as receiver, webhook(receiver) as destination:
        outcome = await destination.deliver(sent)
    (received,) = receiver.received
    assert outcome == Outcome(Verdict.DELIVERED, "200 OK: ok")
    assert (received.method, received.path) == ("POST", "/alerts")
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["webhook-id"] == sent.id
    assert received.headers["User-Agent"].startswith("deltaloom/")
    read = ModerationAlert.model_validate(Webhook(NEW).verify(received.body, dict(received.headers)))
    assert read == sent.alert
    assert received.json["delivery"] == {
        "id": sent.id,
        "severity": "critical",
        "category": "self-harm",
        "rule": "self-harm",
        "route": "pages",
        "privacy": "full",
        "text_sha256": sent.text_sha256,
        "group": "resp_1/0/0/refusal",
        "resolves": False,
        "test": False,
        "digest": None,
    }


async def test_an_id_that_is_invalid_in_a_header_is_hashed() -> None:
    """Hash an id that is invalid in a header. Otherwise its alert would be retried for a day."""
    sent = notification(id="näm\r\nX-Evil: 1")
    async with receiving() as receiver, webhook(receiver) as destination:
        outcomes = [await destination.deliver(sent) for _ in range(2)]
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] * 2
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert "X-Evil" not in first.headers
    Webhook(NEW).verify(first.body, dict(first.headers))
    assert first.json["delivery"]["id"] == sent.id


async def test_a_receiver_verifies_with_the_old_secret_or_with_the_new_one() -> None:
    """Sign with all configured secrets, so that a secret can be changed without losing alerts."""
    async with receiving() as receiver, webhook(receiver, secret_env=["NEW", "OLD"]) as destination:
        await destination.deliver(notification())
    (received,) = receiver.received
    assert len(received.headers["webhook-signature"].split()) == 2
    for secret in (OLD, NEW):
        Webhook(secret).verify(received.body, dict(received.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(base64.b64encode(b"x" * 32).decode()).verify(received.body, dict(received.headers))


async def test_a_recorded_request_is_not_accepted_later() -> None:
    """Sign the time and the id, so that a recorded request is refused later."""
    async with receiving() as receiver, webhook(receiver) as destination:
        await destination.deliver(notification())
    (received,) = receiver.received
    headers = dict(received.headers)
    for name, value in (
        ("webhook-timestamp", str(int(headers["webhook-timestamp"]) - 600)),
        ("webhook-id", "x"),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(NEW).verify(received.body, {**headers, name: value})


async def test_a_cloud_event() -> None:
    """Send a CloudEvent with the alert as its data."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = notification(alert(traceparent=trace))
    async with (
        receiving() as receiver,
        webhook(receiver, envelope="cloudevents", source="//acme") as destination,
    ):
        await destination.deliver(sent)
    (received,) = receiver.received
    Webhook(NEW).verify(received.body, dict(received.headers))
    event = received.json
    data = event.pop("data")
    assert received.headers["Content-Type"] == "application/cloudevents+json"
    assert event == {
        "specversion": "1.0",
        "id": sent.id,
        "source": "//acme",
        "type": "deltaloom.refusal.opened",
        "subject": "resp_1/0/0/refusal",
        "time": RAISED_AT.isoformat(),
        "datacontenttype": "application/json",
        "traceparent": trace,
    }
    assert ModerationAlert.model_validate(data) == sent.alert


async def test_a_digest_has_counts_and_examples() -> None:
    """Mark a digest, with its counts and examples."""
    async with receiving() as receiver, webhook(receiver) as destination:
        await destination.deliver(digest(notification(), finished()))
    (received,) = receiver.received
    contents = received.json["delivery"]["digest"]
    assert (contents["count"], contents["counts"][0]) == (12, ["refusal.opened · gpt-4o", 9])
    assert [ModerationAlert.model_validate(each).id for each in contents["examples"]] == [
        "opened_1",
        "finished_1",
    ]


async def delivered(destination: Destination, sent: Notification) -> list[Outcome]:
    """Deliver until an outcome is final, and return all outcomes."""
    outcomes = [await destination.deliver(sent)]
    while outcomes[-1].verdict is Verdict.RETRY:
        outcomes.append(await destination.deliver(sent))
    return outcomes


async def test_every_alert_arrives_and_again_only_where_the_answer_was_lost() -> None:
    """Retry under the same id until an answer is final, so that a receiver can drop repeats."""
    lost, refused = late(asyncio.Event()), status(429, Retry_After="3")
    behaviours = [hang, refused, status(500), raw(b""), raw(b"HTTP/1.1 200 OK\r\nCont"), lost, status(200)]
    async with receiving(*behaviours) as receiver, webhook(receiver, timeout=2) as destination:
        outcomes = await delivered(destination, notification())
        await delivered(destination, finished())
    assert [each.retry_after for each in outcomes] == [None, 3, None, None, None, None, None]
    assert [each.headers["webhook-id"] for each in receiver.received] == ["opened_1"] * 7 + ["finished_1"]
    for each in receiver.received:
        Webhook(NEW).verify(each.body, dict(each.headers))


async def test_status_410_is_final() -> None:
    """Report status 410 as final for the destination. Otherwise each alert would be retried for a day."""
    async with receiving(status(410)) as receiver, webhook(receiver) as destination:
        (outcome,) = await delivered(destination, notification())
    assert outcome.verdict is Verdict.GONE


async def test_secrets_come_from_files_too(tmp_path: Path) -> None:
    """Read the URL and the secret from files, as orchestrators provide them."""
    async with receiving() as receiver:
        (tmp_path / "url").write_text(f"{receiver.url}/from-a-file\n", "utf-8")
        (tmp_path / "secret").write_text(f"{OLD}\n", "utf-8")
        where: dict[str, Any] = {
            "url": None,
            "url_file": tmp_path / "url",
            "secret_env": [],
            "secret_file": str(tmp_path / "secret"),
        }
        async with webhook(receiver, **where) as destination:
            await destination.deliver(notification())
    (received,) = receiver.received
    assert received.path == "/from-a-file"
    Webhook(OLD).verify(received.body, dict(received.headers))


def test_a_file_that_is_too_large_for_a_secret_is_refused(tmp_path: Path) -> None:
    """Refuse a file whose end would be ignored."""
    file = tmp_path / "secret"
    file.write_text("x" * (64 * 1024 + 1))
    with pytest.raises(DestinationError, match="has more than 65536 characters"):
        from_file(file)


@pytest.mark.parametrize(
    "secret", ["hunter2hunter2", "whsec_AAAA", "whsec_!!!!", "whsec_" + base64.b64encode(b"x" * 23).decode()]
)
def test_an_invalid_secret_is_refused_without_showing_it(secret: str) -> None:
    """Refuse an invalid signing secret, without showing it."""
    options = WebhookOptions(type="webhook", url="https://example.com", secret_env=("HOOK_SECRET",))
    with pytest.raises(DestinationError, match="HOOK_SECRET does not hold a signing secret") as error:
        create_destination("hook", options, {"HOOK_SECRET": secret})
    assert secret not in str(error.value)
