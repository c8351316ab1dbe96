"""Test with a real Alertmanager that receives, groups and resolves alerts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import given

from service.alerts.delivery import Verdict
from service.alerts.destinations.alertmanager import AlertmanagerOptions, labels_of
from service.alerts.destinations.registry import create_destination
from tests.alertmanagers import alertmanager
from tests.notifications import RAISED_AT, alert, digest, finished, notification, notifications, spike
from tests.receivers import hang, receiving, status
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from service.alerts.delivery import Destination, Notification
    from tests.receivers import Receiver


def destination(url: str, environment: Mapping[str, str] | None = None, **table: Any) -> Destination:
    """Return a destination that posts to this URL."""
    table = {"type": "alertmanager", "url": url, "allow_addresses": ["127.0.0.1"], **table}
    return create_destination("am", AlertmanagerOptions.model_validate(table), environment or {})


async def alerts_with(receiver: Receiver, *, of: str, count: int = 1) -> list[dict[str, Any]]:
    """Return the alerts with status `of` in Alertmanager's messages, once there are `count`."""

    def found() -> list[dict[str, Any]]:
        alerts = [one for each in receiver.received for one in each.json["alerts"] if one["status"] == of]
        distinct = {one["fingerprint"]: one for one in alerts}
        return list(distinct.values()) if len(distinct) >= count else []

    return await wait_until(found, message=f"{count} {of}")


async def test_refusals_are_received_grouped_and_resolved(tmp_path: Path) -> None:
    """Fire one alert per refusal, group them, and resolve them at their ends."""
    async with receiving() as receiver, alertmanager(tmp_path, receiver.url, ["category"]) as manager:
        one = destination(manager.url, resolve="all", link="https://console.example/{response_id}")
        opened = [notification(alert(response_id=f"resp_{number}")) for number in range(3)]
        for each in (*opened, opened[0]):  # sent again, as if the first answer was lost
            outcome = await one.deliver(each)
            assert outcome.verdict is Verdict.DELIVERED, outcome.answer
        firing = await alerts_with(receiver, of="firing", count=3)
        assert {each["annotations"]["response_id"] for each in firing} == {"resp_0", "resp_1", "resp_2"}
        assert {each["labels"]["category"] for each in firing} == {"self-harm"}
        assert {each["labels"]["severity"] for each in firing} == {"critical"}
        assert firing[0]["labels"]["alertname"] == "DeltaloomRefusal"
        assert {each["generatorURL"] for each in firing} >= {"https://console.example/resp_0"}
        assert {datetime.fromisoformat(each["startsAt"]) for each in firing} == {RAISED_AT}
        for each in opened:
            ended = finished(response_id=each.alert.response_id, raised_at=RAISED_AT + timedelta(seconds=2))
            # A rule finds another category in the whole text; the alert must stay the same.
            await one.deliver(replace(ended, category="policy"))
        resolved = await alerts_with(receiver, of="resolved", count=3)
        assert {each["annotations"]["status"] for each in resolved} == {"completed"}
        await wait_until(partial(nothing_fires, manager.alerts), message="nothing fires")
        await one.aclose()


async def nothing_fires(alerts: Any) -> bool:
    """Return whether no alert fires."""
    return not await alerts()


async def test_a_refusal_fires_on_when_it_has_ended_and_a_spike_until_it_has(tmp_path: Path) -> None:
    """Fire a refusal after its end, until it expires, and a spike until it has ended."""
    async with receiving() as receiver, alertmanager(tmp_path, receiver.url, ["alertname"]) as manager:
        one = destination(manager.url, labels={"team": "safety"})
        for each in (notification(), finished(), spike()):
            await one.deliver(each)
        both = {each["labels"]["alertname"]: each for each in await manager.alerts()}
        assert set(both) == {"DeltaloomRefusal", "DeltaloomRefusalSpike"}
        assert both["DeltaloomRefusal"]["annotations"]["status"] == "completed"
        assert both["DeltaloomRefusal"]["labels"]["team"] == "safety"
        await alerts_with(receiver, of="firing")
        await one.deliver(spike(ended=True))
        (resolved,) = await alerts_with(receiver, of="resolved")
        assert resolved["labels"]["alertname"] == "DeltaloomRefusalSpike"
        assert [each["labels"]["alertname"] for each in await manager.alerts()] == ["DeltaloomRefusal"]
        await one.aclose()


async def test_a_digest_is_one_alert_of_its_own(tmp_path: Path) -> None:
    """Send a digest under its own labels. Otherwise it would replace its first alert."""
    async with receiving() as receiver, alertmanager(tmp_path, receiver.url, ["alertname"]) as manager:
        one = destination(manager.url)
        await one.deliver(notification())
        await one.deliver(digest())
        found = {each["labels"]["alertname"]: each for each in await manager.alerts()}
        assert set(found) == {"DeltaloomRefusal", "DeltaloomDigest"}
        assert found["DeltaloomDigest"]["annotations"]["count"] == "12"
        assert "9 times refusal.opened" in found["DeltaloomDigest"]["annotations"]["description"]
        await one.aclose()


async def test_an_alert_that_waited_long_fires_all_the_same() -> None:
    """Set the end time from now. Otherwise an alert sent after an outage would already be over."""
    async with receiving() as receiver:
        one = destination(f"{receiver.url}/prefix/", firing_for=60)
        long_ago = alert(raised_at=datetime(2020, 1, 1, tzinfo=UTC))
        await one.deliver(notification(long_ago))
        await one.aclose()
    (received,) = receiver.received
    assert received.path == "/prefix/api/v2/alerts"
    (posted,) = received.json
    assert datetime.fromisoformat(posted["endsAt"]) > RAISED_AT > datetime.fromisoformat(posted["startsAt"])
    assert posted.keys() == {"labels", "annotations", "startsAt", "endsAt"}


async def test_known_values_are_annotated() -> None:
    """Add the alert's known values as annotations, for templates."""
    known = {
        "response_id": "resp_1",
        "item_id": "msg_1",
        "status": "failed",
        "reason": "cyber_policy",
        "reason_class": "policy",
        "provider_category": "cyber",
        "upstream_provider": "openai",
        "upstream_response_id": "up_1",
    }
    async with receiving() as receiver:
        one = destination(receiver.url)
        await one.deliver(notification(alert(**known, reference="https://chat.example/7")))
        await one.aclose()
    annotations = receiver.received[0].json[0]["annotations"]
    assert annotations | known == annotations
    assert annotations["request"] == "https://chat.example/7"
    assert annotations["alert_id"] == "opened_1"


async def test_labels_are_equal_in_all_attempts() -> None:
    """Send equal labels in each attempt and for the end. Otherwise the alert would fire on."""
    async with receiving(status(200), status(503), status(200)) as receiver:
        one = destination(receiver.url, resolve="all")
        await one.deliver(notification())
        for _ in range(2):
            await one.deliver(replace(finished(), severity="info"))
        await one.aclose()
    labels = [each.json[0]["labels"] for each in receiver.received]
    assert labels[0] == labels[1] == labels[2]


async def test_the_authorization_is_sent_and_stays_secret() -> None:
    """Send the Authorization header, and keep it out of logged answers."""
    async with receiving(status(200), status(401, "no such token: abcdefgh"), hang) as receiver:
        secret = {"AUTH": "Bearer abcdefgh"}
        one = destination(receiver.url, secret, authorization_env="AUTH", timeout=2)
        answers = [(await one.deliver(notification())).answer for _ in range(3)]
        await one.aclose()
    assert receiver.received[0].headers["Authorization"] == "Bearer abcdefgh"
    assert answers[1:] == ["401 Unauthorized: no such token: …", "no answer in time"]


def test_an_unknown_type_has_a_name_of_its_own() -> None:
    """Name and label unknown types, so that routes can match them."""
    labels = labels_of(notification(alert("deltaloom.prompt.flagged"), severity="severe"), {})
    assert (labels["alertname"], labels["type"]) == ("DeltaloomAlert", "deltaloom.prompt.flagged")
    assert labels["severity"] == "severe"
    assert "type" not in labels_of(notification(), {})


@given(notifications())
def test_labels_are_valid_for_alertmanager(what: Notification) -> None:
    """Send no empty labels, since Alertmanager drops them and refuses alerts without any."""
    labels = labels_of(what, {})
    assert labels["alertname"]
    assert all(labels.values())
    assert labels == labels_of(what, {})
