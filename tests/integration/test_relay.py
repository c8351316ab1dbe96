"""Tests of one relay with a receiver that fails in many ways."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from deltaloom import StreamNames
from embedded.free_ports import free_port
from handlers.core.identity import EntryId
from service.alerts.deciding.privacy import Redactor
from service.alerts.destinations.webhook import WebhookDestination
from service.alerts.sending import destination_relay, health
from service.alerts.sending import in_flight as room
from service.alerts.sending.destination_relay import DestinationRelay
from service.alerts.sending.schedule import Schedule
from service.apps.relay_app import relaying
from service.keys import RelayKeys
from service.ports.outbox import CONSUMER, Confirmation, EntryRef, SavedDigest
from service.settings import Settings
from service.storage.client.batch_reader import Request
from service.storage.redis_outbox import DestinationGroup, RedisOutbox
from tests.relays import (
    SECRETS,
    deliveries,
    destination,
    pending_alerts,
    raise_alert,
    undelivered,
    wait_until_served,
    wait_until_settled,
)
from tests.service.cli.command import deltaloom, environment
from tests.streams import add, entries, read_as
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from redis.asyncio import Redis

    from deltaloom.messages import ModerationAlert
    from service.alerts.delivery import Notification, Outcome
    from service.alerts.sending.message import OutgoingMessage
    from service.apps.relay_app import RelayApp
    from service.storage.client.direct import Words
    from tests.webhook_receiver import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver of alerts."""
    async with receiving() as made:
        yield made


class Stage:
    """The server, alerts file and relays of a test."""

    def __init__(self, redis: Redis, redis_url: str, prefix: str, folder: Path) -> None:
        self.redis = redis
        self.prefix = prefix
        self.file = folder / "alerts.toml"
        self.settings = Settings(redis_url=redis_url, prefix=prefix, lease_time=2, block_ms=50)
        self.environment = environment(redis_url, prefix, **SECRETS)

    @asynccontextmanager
    async def relay(self, *tables: str) -> AsyncIterator[RelayApp]:
        """Run a relay with these TOML tables as its alerts file."""
        self.file.write_text("\n".join(tables))
        async with relaying(self.settings, self.file, SECRETS) as relays:
            relays.start()
            yield relays

    async def raised(self, phase: str, response: str, **changed: Any) -> str:
        """Raise an alert, and return its id."""
        return await raise_alert(self.redis, self.prefix, phase, response, **changed)

    async def settled(self, name: str = "here") -> None:
        """Wait until no alert is pending for a destination."""
        await wait_until_settled(self.redis, self.prefix, name)


@pytest.fixture
def stage(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> Stage:
    """Return the stage of one test."""
    return Stage(redis, redis_url, prefix, tmp_path)


async def test_alerts_arrive_and_are_acknowledged(stage: Stage, receiver: Receiver) -> None:
    """Alerts raised before the relay started and while it runs are delivered once, and acknowledged."""
    before = await stage.raised("opened", "resp_1")
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
        after = await stage.raised("finished", "resp_1")
        await wait_until(lambda: receiver.taken == [before, after])
        await stage.settled()
    assert receiver.came.total() == 2


async def test_ends_of_alerts_are_recorded(stage: Stage, receiver: Receiver) -> None:
    """Subscribers and operators see how each alert ended at a destination, without a text."""
    receiver.answer = lambda name, count: web.Response(
        status=400 if name == "opened_bad" else 200 if count > 1 else 503, text="no\u202e such field"
    )
    raised_at = datetime.fromtimestamp(time.time() - 5, UTC)
    good = await stage.raised("opened", "good", raised_at=raised_at)
    bad = await stage.raised("opened", "bad", raised_at=raised_at + timedelta(days=300))
    await stage.raised("opened", "unrouted", model="other")
    await add(stage.redis, StreamNames(stage.prefix).alerts, {"__data__": "{"})
    route = '[[routes]]\nname = "all-of-x"\nto = "here"\nmatch = { model = "gpt-x" }\n'
    async with stage.relay(destination("here", receiver.url), route):
        await stage.settled()
    unreadable, refused, delivered = sorted(
        await deliveries(stage.redis, stage.prefix), key=lambda each: str(each.outcome), reverse=True
    )
    assert (delivered.outcome, delivered.alert_id, delivered.response_id) == ("delivered", good, "good")
    assert (delivered.attempts, delivered.destination, delivered.source) == (2, "here", stage.prefix)
    assert (delivered.severity, delivered.route, delivered.privacy) == ("warning", "all-of-x", "none")
    assert (delivered.kind, delivered.alert_type) == ("refusal", "deltaloom.refusal.opened")
    assert delivered.delivered_at is not None
    assert delivered.latency_ms == round((delivered.delivered_at - raised_at).total_seconds() * 1000) > 5000
    assert (refused.outcome, refused.alert_id, refused.attempts) == ("refused", bad, 1)
    assert (refused.delivered_at, refused.latency_ms) == (None, 0)
    assert refused.answer.startswith("400 Bad Request: no")
    assert refused.answer.isprintable()
    assert (unreadable.outcome, unreadable.alert_id, unreadable.severity) == ("unreadable", None, None)
    assert unreadable.latency_ms < 60_000
    shown = deltaloom("tail", "deliveries", "--from-start", "--count", "3", env=stage.environment)
    assert "here · delivered · after" in shown.stdout
    assert "400 Bad Request" in shown.stdout
    assert shown.stderr == ""


async def test_what_was_confirmed_is_not_sent_again(stage: Stage, receiver: Receiver) -> None:
    """Delivered alerts are not sent again after a restart of the relay."""
    first = await stage.raised("opened", "resp_1")
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
    second = await stage.raised("opened", "resp_2")
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
    assert [request.id for request in receiver.requests] == [first, second]


async def test_a_stop_at_the_limit_in_flight_is_no_outage(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each stop of a relay with a paused destination would report that Redis is down."""
    one = room.InFlightLimit
    monkeypatch.setattr("service.alerts.sending.destination_relay.InFlightLimit", lambda: one(1))
    receiver.answer = lambda _id, _count: web.Response(status=503, headers={"Retry-After": "60"})
    for n in range(3):
        await stage.raised("opened", f"resp_{n}")
    with capture_logs() as lines:
        async with stage.relay(destination("here", receiver.url)):
            await wait_until(lambda: receiver.came.total() > 0)
            for n in range(3, 6):
                await stage.raised("opened", f"resp_{n}")
    assert not [line for line in lines if "redis unavailable" in line["event"]]


async def test_new_destination_begins_now(stage: Stage, receiver: Receiver) -> None:
    """A new destination with `begin = "now"` gets no older alerts."""
    await stage.raised("opened", "old")
    async with stage.relay(destination("here", receiver.url, begin="now")):
        await wait_until_served(stage.redis, stage.prefix, "here")
        new = await stage.raised("opened", "new")
        await wait_until(lambda: receiver.taken)
    assert receiver.taken == [new]


async def test_new_destination_begins_now_also_after_a_failure(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that cannot create its consumer group tries again before it reads.

    Otherwise the reader would create the group, at the beginning of the stream.
    """
    ensure, failures = DestinationGroup.ensure, [ValueError("unexpected")]

    async def fail_once(self: DestinationGroup, begin: Any = "all") -> None:
        if failures:
            raise failures.pop()
        await ensure(self, begin)

    monkeypatch.setattr(DestinationGroup, "ensure", fail_once)
    await stage.raised("opened", "resp_old")
    async with stage.relay(destination("here", receiver.url, begin="now")):
        await wait_until_served(stage.redis, stage.prefix, "here")
        new = await stage.raised("opened", "resp_new")
        await stage.settled()
    assert receiver.taken == [new]


async def test_a_batch_is_one_read(stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay never reads a batch in several reads, even if its alerts are large.

    Another relay that has lost the lease without knowing may read between two of them. The intake looks for
    the entries of such a read only between two batches.
    """
    reads, command = list[int](), Request.more_commands

    def more_commands(request: Request) -> list[Words]:
        more = command(request)
        reads.append(1 + len(more))
        return more

    monkeypatch.setattr(Request, "more_commands", more_commands)
    raised = [await stage.raised("opened", f"resp_{n}", text="No. " * 12_000) for n in range(20)]
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
    assert sorted(receiver.taken) == sorted(raised)
    assert set(reads) == {1}


@pytest.mark.parametrize("status", [500, 503, 429, 408, 0])
async def test_tried_again_in_order(stage: Stage, receiver: Receiver, status: int) -> None:
    """A failed delivery is retried, and later alerts of the same part wait for it."""
    receiver.answer = lambda _id, count: (
        web.Response() if count > 2 else web.Response(status=status) if status else None
    )
    opened = await stage.raised("opened", "resp_1")
    finished = await stage.raised("finished", "resp_1")
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
    assert receiver.taken == [opened, finished]
    assert [request.id for request in receiver.requests] == [opened] * 3 + [finished] * 3
    assert await undelivered(stage.redis, stage.prefix) == []


async def test_pause_that_is_requested(stage: Stage, receiver: Receiver) -> None:
    """A relay pauses for as long as the receiver's `Retry-After` requests."""
    asks = {"Retry-After": "3"}
    receiver.answer = lambda _id, _count: (
        web.Response() if len(receiver.requests) else web.Response(status=429, headers=asks)
    )
    for n in range(3):
        await stage.raised("opened", f"resp_{n}")
    async with stage.relay(destination("here", receiver.url, rate_limit={"per_minute": 6000, "burst": 1})):
        await stage.settled()
    first, *others = receiver.requests
    under_way = [each for each in others if each.at - first.at < 1.5]
    assert len(under_way) <= 2
    assert all(each.at - first.at > 2.9 for each in others if each not in under_way)


async def test_critical_alert_does_not_wait_for_a_long_pause(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A critical alert is sent during a long pause; alerts of the same part before it are sent first."""
    monkeypatch.setattr(health, "LONGEST_CRITICAL_PAUSE", 0.01)
    asks = {"Retry-After": "86400"}
    receiver.answer = lambda _id, _count: (
        web.Response() if len(receiver.requests) > 1 else web.Response(status=429, headers=asks)
    )
    began = time.time()
    with capture_logs() as lines:
        first = await stage.raised("opened", "resp_1")
        async with stage.relay(destination("here", receiver.url, max_retry_after=600)):
            await wait_until(lambda: any("paused" in line["event"] for line in lines))
            await stage.raised("opened", "resp_2")
            opened = await stage.raised("opened", "resp_3")
            critical = await stage.raised("finished", "resp_3", severity="critical")
            await wait_until(lambda: receiver.taken == [opened, critical])

            async def two_pending() -> bool:
                return await pending_alerts(stage.redis, stage.prefix, "here") == 2

            await wait_until(two_pending)
    assert [request.id for request in receiver.requests] == [first, opened, opened, critical]
    paused = [line for line in lines if "paused" in line["event"]]
    assert {line["log_level"] for line in paused} == {"warning"}
    until = datetime.fromisoformat(paused[0]["until"]).timestamp()
    assert began + 598 < until < time.time() + 600


async def test_a_destination_that_stays_down_is_named_again(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log it from time to time with the backlog, and show it in the status."""
    monkeypatch.setattr(health, "pause_after", lambda *_: 0.01)
    monkeypatch.setattr(destination_relay, "pause_after", lambda *_: 0.01)
    monkeypatch.setattr(destination_relay, "_LOG_AGAIN_AFTER", 0.05)
    receiver.answer = lambda _id, _count: web.Response(status=503)
    await stage.raised("opened", "resp_1")
    await stage.raised("opened", "resp_2")
    still = "destination still down, retrying"
    with capture_logs() as lines:
        async with stage.relay(destination("here", receiver.url)) as relay:
            await wait_until(lambda: sum(line["event"] == still for line in lines) > 1)
            (status,) = (await relay.status())["destinations"]
            assert (status["sends"], status["paused"], status["backlog"]) == (True, True, 2)
            assert status["last_answer"].startswith("503")
            receiver.answer = lambda _id, _count: web.Response()
            await stage.settled()
    assert [line["event"] for line in lines].count("destination down, retrying") == 1
    line = next(line for line in lines if line["event"] == still)
    assert (line["log_level"], line["alerts"]) == ("warning", 2)
    assert line["answer"].startswith("503")


async def test_an_error_after_an_attempt_schedules_no_second_one(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the relay of the destination would fail, such as when its group is deleted meanwhile."""
    put_back = Schedule.put_back
    due: list[OutgoingMessage] = []

    def counted(schedule: Schedule, message: OutgoingMessage, at: float) -> None:
        due.append(message)
        put_back(schedule, message, at)

    async def missing_group(_relay: DestinationRelay) -> None:
        raise ResponseError("NOGROUP")

    monkeypatch.setattr(Schedule, "put_back", counted)
    monkeypatch.setattr(DestinationRelay, "_log_still_down", missing_group)
    monkeypatch.setattr(destination_relay, "pause_after", lambda *_: 0.01)
    receiver.answer = lambda _id, count: web.Response(status=503 if count < 3 else 200)
    await stage.raised("opened", "resp_1")
    with capture_logs() as lines:
        async with stage.relay(destination("here", receiver.url)):
            await stage.settled()
    assert [line["event"] for line in lines].count("message failed") == len(due) == len(receiver.requests) - 1


async def test_refused_is_kept_and_can_be_sent_again(stage: Stage, receiver: Receiver) -> None:
    """A message that the receiver refuses is stored as undelivered, and blocks no other."""
    receiver.answer = lambda name, _count: web.Response(
        status=400 if name == "opened_bad" else 200, text="no such field"
    )
    bad = await stage.raised("opened", "bad")
    good = await stage.raised("finished", "bad")
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
    assert [request.id for request in receiver.requests] == [bad, good]
    (given_up,) = await undelivered(stage.redis, stage.prefix)
    assert (given_up.destination, given_up.reason, given_up.attempts) == ("here", "refused", 1)
    assert "400" in given_up.answer
    assert "no such field" in given_up.answer
    listed = deltaloom("alerts", "undelivered", env=stage.environment)
    assert "refused" in listed.stdout
    assert "1 of 1 undelivered alert" in listed.stdout


async def test_resend(stage: Stage, receiver: Receiver) -> None:
    """`resend` sends undelivered alerts again under their ids, and keeps those that fail."""
    receiver.answer = lambda _id, _count: web.Response(status=400)
    missed = [await stage.raised("opened", f"resp_{n}") for n in range(2)]
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
    command = ("alerts", "resend", "--all", "--config", str(stage.file))
    failed = await _in_thread(*command, env=stage.environment)
    assert failed.returncode == 1
    assert "2 not delivered" in failed.stderr
    assert len(await undelivered(stage.redis, stage.prefix)) == 2
    receiver.answer = lambda _id, _count: web.Response()
    done = await _in_thread(*command, env=stage.environment)
    assert (done.returncode, done.stdout) == (0, "2 delivered\n"), done.stderr
    assert sorted(receiver.taken) == missed  # alerts of two responses have no order
    assert await undelivered(stage.redis, stage.prefix) == []


async def test_status_410_disables_until_enabled(stage: Stage, receiver: Receiver) -> None:
    """HTTP 410 disables a destination until it is enabled; its alerts are stored as undelivered."""
    receiver.answer = lambda _id, _count: web.Response(status=410)
    first = await stage.raised("opened", "resp_1")
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
        receiver.answer = lambda _id, _count: web.Response()
        second = await stage.raised("opened", "resp_2")
        await stage.settled()
    async with stage.relay(destination("here", receiver.url)):
        await stage.raised("opened", "resp_3")
        await stage.settled()
        assert [request.id for request in receiver.requests] == [first]
        given_up = await undelivered(stage.redis, stage.prefix)
        assert [each.reason for each in given_up] == ["gone"] * 3
        assert second in str(given_up[1].alert)
        resent = await _in_thread(
            "alerts", "resend", "--all", "--config", str(stage.file), env=stage.environment
        )
        assert (resent.returncode, resent.stdout) == (1, "0 delivered\n")
        advice = "here is disabled (410 Gone): enable it with `deltaloom alerts enable here`"
        assert resent.stderr.count(advice) == 3, resent.stderr
        assert [request.id for request in receiver.requests] == [first]
        enabled = await _in_thread("alerts", "enable", "here", env=stage.environment)
        assert enabled.returncode == 0, enabled.stderr

        async def enabled_here() -> bool:
            return await RedisOutbox(stage.redis, stage.settings.names, "here").disabled_answer() is None

        await wait_until(enabled_here)
        await wait_until(_delivers(stage, receiver), message="it is sent to again")
    again = await _in_thread("alerts", "enable", "here", env=stage.environment)
    assert again.returncode == 1
    assert "not disabled" in again.stderr


async def test_a_failed_lookup_of_a_disabled_destination_is_logged(stage: Stage, receiver: Receiver) -> None:
    """An error while the relay looks up whether a destination is enabled is logged."""
    receiver.answer = lambda _id, _count: web.Response(status=410)
    gone = RelayKeys(stage.settings.names.all[0], "here").disabled
    with capture_logs() as lines:
        async with stage.relay(destination("here", receiver.url)):
            await stage.raised("opened", "resp_1")
            await stage.settled()
            receiver.answer = lambda _id, _count: web.Response()
            await stage.redis.delete(gone)
            await stage.redis.set(gone, "not a hash")
            await wait_until(lambda: any("WRONGTYPE" in str(line.get("state")) for line in lines))
            await stage.redis.delete(gone)
            await wait_until(_delivers(stage, receiver), message="it is sent to again")


def _delivers(stage: Stage, receiver: Receiver) -> Callable[[], Awaitable[bool]]:
    async def another_one_arrives() -> bool:
        await stage.raised("opened", f"again_{len(receiver.requests)}")
        await stage.settled()
        return bool(receiver.taken)

    return another_one_arrives


async def test_given_up_after_its_time(stage: Stage) -> None:
    """Alerts that cannot be delivered within `give_up_after` are stored as undelivered."""
    await stage.raised("opened", "resp_1")
    await stage.raised("finished", "resp_1")
    async with stage.relay(destination("here", f"http://127.0.0.1:{free_port()}/", give_up_after=5)):
        await stage.settled()
    given_up = await undelivered(stage.redis, stage.prefix)
    assert [(each.reason, each.destination) for each in given_up] == [("expired", "here")] * 2
    assert given_up[0].attempts > 0


async def test_given_up_after_its_time_with_an_id_in_the_future(stage: Stage) -> None:
    """An id far in the future, which all later ids follow, keeps no alert for ever and stops no relay."""
    await stage.redis.xadd(StreamNames(stage.prefix).alerts, {"hello": "world"}, id=f"{2**60}-0")
    await stage.raised("opened", "resp_1")
    async with stage.relay(destination("here", f"http://127.0.0.1:{free_port()}/", give_up_after=2)):
        await stage.settled()
    assert [each.reason for each in await undelivered(stage.redis, stage.prefix)] == ["unreadable", "expired"]


async def test_a_failed_destination_is_logged_without_its_folder(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a destination is logged with the name and line of the file; the alert is retried."""
    deliver, failures = WebhookDestination.deliver, [ValueError("a secret")]

    async def fail_once(self: WebhookDestination, notification: Notification) -> Outcome:
        if failures:
            raise failures.pop()
        return await deliver(self, notification)

    monkeypatch.setattr(WebhookDestination, "deliver", fail_once)
    await stage.raised("opened", "resp_1")
    with capture_logs() as lines:
        async with stage.relay(destination("here", receiver.url)):
            await stage.settled()
    (line,) = [line for line in lines if line["event"] == "destination failed"]
    assert re.fullmatch(r"test_relay\.py:\d+", line["where"])


async def test_dead_destination_delays_no_other(stage: Stage, receiver: Receiver) -> None:
    """A destination that does not answer delays no other destination."""
    names = [await stage.raised("opened", f"resp_{n}") for n in range(20)]
    dead = destination("dead", f"http://127.0.0.1:{free_port()}/")
    async with stage.relay(dead, destination("here", receiver.url)):
        await stage.settled("here")
        assert await pending_alerts(stage.redis, stage.prefix, "dead") == 20
    assert sorted(receiver.taken) == sorted(names)


async def test_only_what_is_routed_and_not_muted(stage: Stage, receiver: Receiver) -> None:
    """Alerts that are not routed to a destination, or muted, do not stay pending."""
    route = '[[routes]]\nmatch = { tenant = "acme" }\nto = ["here"]\n'
    mute = '[[mutes]]\nmatch = { model = "old" }\nuntil = 2126-01-01T00:00:00Z\nwhy = "known"\n'
    await stage.raised("opened", "other")
    await stage.raised("opened", "muted", tenant="acme", model="old")
    wanted = await stage.raised("opened", "wanted", tenant="acme")
    async with stage.relay(destination("here", receiver.url), route, mute):
        await stage.settled()
    assert receiver.taken == [wanted]
    assert await undelivered(stage.redis, stage.prefix) == []


async def test_each_destination_searches_a_text_for_itself_alone(
    stage: Stage, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text is searched once per destination, in a thread.

    Otherwise a long text would block, and leases be lost.
    """
    threads, redact = [], Redactor.redact

    def counted(redactor: Redactor, *arguments: Any) -> ModerationAlert:
        threads.append(threading.current_thread())
        return redact(redactor, *arguments)

    monkeypatch.setattr(Redactor, "redact", counted)
    names = ("first", "second", "third")
    routes = f'[[routes]]\nto = {json.dumps(names)}\ntext = "full"'
    async with stage.relay(*(destination(name, receiver.url) for name in names), routes):
        for number in range(3):
            await stage.raised("opened", f"resp_{number}", text=f"{number} 3" * 20_000)
        for name in names:
            await stage.settled(name)
    assert receiver.came.total() == 9
    assert len(threads) == 9
    assert threading.main_thread() not in threads


async def test_entry_that_is_no_alert(stage: Stage, receiver: Receiver) -> None:
    """An entry that is not an alert is stored as undelivered, and blocks no other."""
    await add(stage.redis, StreamNames(stage.prefix).alerts, {"hello": "world"})
    good = await stage.raised("opened", "resp_1")
    with capture_logs() as lines:
        async with stage.relay(destination("here", receiver.url)):
            await stage.settled()
    assert receiver.taken == [good]
    assert [each.reason for each in await undelivered(stage.redis, stage.prefix)] == ["unreadable"]
    (line,) = [line for line in lines if line["event"] == "alert undelivered"]
    ((entry_id, _),) = (await entries(stage.redis, StreamNames(stage.prefix).alerts))[:1]
    assert (line["reason"], line["alert"], line["attempts"]) == ("unreadable", entry_id, 0)


async def test_alert_of_a_later_version(stage: Stage, receiver: Receiver) -> None:
    """A relay delivers alerts with unknown types, values and fields, which newer workers may write."""
    new = await stage.raised(
        "opened", "resp_1", type="deltaloom.prompt.flagged", kind="prompt", severity="severe", status="held"
    )
    odd = json.loads((await entries(stage.redis, StreamNames(stage.prefix).alerts))[0][1][b"__data__"])
    odd |= {"id": "odd", "rate": {"by": "region"}, "text": None, "tenant": ["a", "b"]}
    await add(stage.redis, StreamNames(stage.prefix).alerts, {"__data__": json.dumps(odd)})
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
    assert receiver.taken == [new, "odd"]
    assert [request.body["severity"] for request in receiver.requests] == ["severe", "severe"]
    assert (receiver.requests[1].body["rate"], receiver.requests[1].body["tenant"]) == (None, None)
    assert await undelivered(stage.redis, stage.prefix) == []


async def test_undelivered_of_a_later_version_is_listed(stage: Stage) -> None:
    """Undelivered alerts with an unknown reason or invalid JSON are listed like the others."""
    stored = {"destination": "here", "answer": "no", "attempts": "1", "entry_id": "1-1"}
    stored |= {"failed_at": "2026-05-04T12:00:00Z", "reason": "quota\x1b[2J"}
    for data in (b"\xff{", b"{}"):
        await add(stage.redis, StreamNames(stage.prefix).undelivered, {**stored, "__data__": data})
    shown = await _in_thread("alerts", "undelivered", env=stage.environment)
    assert shown.stdout.count("quota\\x1b[2J") == 2, shown.stderr
    listed = await _in_thread("alerts", "undelivered", "--json", env=stage.environment)
    assert [json.loads(line)["alert"] for line in listed.stdout.splitlines()] == [{}, "\\xff{"]


async def test_digest(stage: Stage, receiver: Receiver) -> None:
    """Similar alerts within a window are sent as one digest."""
    names = [await stage.raised("opened", f"resp_{n}") for n in range(10)]
    group = {"by": ["model"], "window": 1, "from": 3}
    async with stage.relay(destination("here", receiver.url, group=group)):
        await stage.settled()
    *alone, digest = receiver.requests
    assert sorted(each.id for each in alone) == sorted(names[:2])
    summary = digest.body["delivery"]["digest"]
    assert (summary["count"], len(summary["examples"])) == (8, 3)
    assert digest.id.startswith("digest_")
    assert await stage.redis.exists(f"{stage.prefix}:relay:here:digests") == 0


async def test_digest_is_the_same_after_a_restart(stage: Stage, receiver: Receiver) -> None:
    """A digest that was not confirmed is sent again unchanged after a restart."""
    receiver.answer = lambda name, _count: web.Response(status=503 if name.startswith("digest") else 200)
    for n in range(5):
        await stage.raised("opened", f"resp_{n}")
    group = {"by": ["model"], "window": 1, "from": 2}
    async with stage.relay(destination("here", receiver.url, group=group)):
        await wait_until(lambda: any(name.startswith("digest") for name in receiver.came))
    late = await stage.raised("finished", "resp_3")
    receiver.answer = lambda _id, _count: web.Response()
    async with stage.relay(destination("here", receiver.url, group=group)):
        await stage.settled()
    digests = [name for name in receiver.came if name.startswith("digest")]
    assert len(digests) == 1
    assert receiver.taken == ["opened_resp_0", *digests, late]
    assert receiver.requests[-2].body["delivery"]["digest"]["count"] == 4


@pytest.mark.slow
async def test_a_full_relay_closes_windows_early(stage: Stage, receiver: Receiver) -> None:
    """A relay with the maximum of waiting messages closes windows early, to make room for urgent alerts."""
    for n in range(room.MESSAGES + 2):
        await stage.raised("opened", f"resp_{n}")
    group = {"by": ["model"], "window": 3600, "from": 2}
    async with stage.relay(destination("here", receiver.url, group=group)):
        await wait_until(lambda: any(name.startswith("digest") for name in receiver.came), 60)
    digest = receiver.requests[-1]
    assert digest.body["delivery"]["digest"]["count"] >= room.MESSAGES - 500


async def test_rate_limit(stage: Stage, receiver: Receiver) -> None:
    """Alerts beyond the rate limit are delayed, not dropped."""
    names = [await stage.raised("opened", f"resp_{n}") for n in range(8)]
    limit = {"per_minute": 100, "burst": 3}
    async with stage.relay(destination("here", receiver.url, rate_limit=limit)):
        await stage.settled()
    assert sorted(receiver.taken) == sorted(names)
    times = [request.at for request in receiver.requests]
    assert times[7] - times[0] > 2.5  # five of them wait 0.6 s each, less a late first one


async def test_reload(stage: Stage, receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    """A valid file is loaded at SIGHUP; an invalid one is reported, and the former stays."""
    async with stage.relay(destination("here", receiver.url)) as relays:
        stage.file.write_text("[destinations.here]\ntype = 'webook'\n")
        relays.reload()
        await wait_until(lambda: "should be one of" in capsys.readouterr().out)
        first = await stage.raised("opened", "resp_1")
        await stage.settled()
        stage.file.write_text(destination("there", receiver.url))
        relays.reload()
        await wait_until_served(stage.redis, stage.prefix, "there")
        await stage.settled("there")
        second = await stage.raised("opened", "resp_2")
        await stage.settled("there")
    assert receiver.taken == [first, first, second]


async def test_group_that_is_gone_is_made_again(stage: Stage, receiver: Receiver) -> None:
    """A deleted stream's consumer group is created again."""
    async with stage.relay(destination("here", receiver.url)):
        await stage.raised("opened", "resp_1")
        await stage.settled()
        await stage.redis.delete(StreamNames(stage.prefix).alerts)
        await stage.raised("opened", "resp_2")
        await wait_until(lambda: len(receiver.taken) == 2)


def test_test_alert(stage: Stage) -> None:
    """`alerts test` shows whether a destination works before it is needed."""
    stage.file.write_text('[destinations.here]\ntype = "command"\ncommand = ["/bin/cat"]\n')
    done = deltaloom("alerts", "test", "here", "--config", str(stage.file), env=dict(os.environ))
    assert (done.returncode, done.stdout) == (0, "here took it: exit status 0\n"), done.stderr
    unknown = deltaloom("alerts", "test", "there", "--config", str(stage.file), env=dict(os.environ))
    assert unknown.returncode == 1
    assert "no destination there" in unknown.stderr


async def _in_thread(*arguments: str, env: dict[str, str]) -> CompletedProcess[str]:
    """Run the command in a thread while this event loop serves the receiver."""
    return await asyncio.to_thread(deltaloom, *arguments, env=env)


async def test_all_partitions(stage: Stage, receiver: Receiver) -> None:
    """A relay delivers the alerts of all partitions, and collects their digests together."""
    settings = Settings(**{**stage.settings.model_dump(exclude_none=True), "partitions": 3})
    prefixes = [each.alerts.removesuffix(":alerts") for each in settings.names.all]
    names = [
        await raise_alert(stage.redis, prefixes[n % 3], phase, f"{n}")
        for n in range(9)
        for phase in ("opened", "finished")
    ]
    group = {"by": ["model"], "window": 1, "from": 4}
    stage.file.write_text(destination("here", receiver.url, group=group))
    async with relaying(settings, stage.file, SECRETS) as relays:
        relays.start()
        await wait_until(lambda: any(name.startswith("digest") for name in receiver.taken))

        async def all_settled() -> bool:
            return not any([await pending_alerts(stage.redis, each, "here") for each in prefixes])

        await wait_until(all_settled)
    alone = [request.id for request in receiver.requests if not request.id.startswith("digest")]
    digests = [request.body["delivery"]["digest"] for request in receiver.requests if request.id not in alone]
    assert len(alone) + sum(digest["count"] for digest in digests) == len(names)


async def test_digest_that_was_confirmed_is_not_sent_again(stage: Stage, receiver: Receiver) -> None:
    """A confirmed digest is not sent again if the relay was killed before all acknowledgements."""
    for n in range(3):
        await stage.raised("opened", f"resp_{n}")
    alerts = StreamNames(stage.prefix).alerts
    await stage.redis.xgroup_create(alerts, "relay:here", id="0")
    read = await read_as(stage.redis, alerts, "relay:here", CONSUMER, 10)
    places = [EntryRef(alerts, EntryId.parse(entry_id.decode())) for entry_id, _ in read]
    outbox = RedisOutbox(stage.redis, stage.settings.names, "here")
    at = datetime(2026, 5, 4, 12, 0, 1, tzinfo=UTC)
    await outbox.save_digest("digest_1", SavedDigest(places, Confirmation("200 OK", 2, at)))
    async with stage.relay(destination("here", receiver.url)):
        await stage.settled()
        late = await stage.raised("opened", "late")
        await stage.settled()
    assert receiver.taken == [late]
    assert await outbox.digests() == {}
    *of_digest, _ = await deliveries(stage.redis, stage.prefix)
    assert {(each.digest_id, each.attempts, each.delivered_at) for each in of_digest} == {("digest_1", 2, at)}
    assert [(each.alert_id, each.route) for each in of_digest] == [
        (f"opened_resp_{n}", "everything") for n in range(3)
    ]
