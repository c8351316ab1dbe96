"""Test the schedule: order within a lane, one message at a time, and no starvation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from service.alerts.sending.schedule import Schedule
from tests.service.alerts.messages import LATER, message

if TYPE_CHECKING:
    from service.alerts.sending.message import OutgoingMessage

MAX_EXPIRED = 100


def test_a_lane_sends_one_message_at_a_time() -> None:
    """Send a lane's messages one at a time. Otherwise a finished alert could overtake its opened alert."""
    schedule = Schedule()
    opened, finished = message("opened", lanes=("a",)), message("finished", lanes=("a",))
    other = message("other", lanes=("b",))
    for each in (opened, finished, other):
        schedule.add(each)
    assert schedule.pop(0) is opened
    assert schedule.pop(0) is other
    assert schedule.pop(0) is None
    schedule.put_back(opened, 5)
    assert schedule.pop(4) is None
    assert schedule.next_at() == 5
    assert schedule.pop(5) is opened
    schedule.done(opened)
    assert schedule.pop(5) is finished
    schedule.done(finished)
    assert not schedule.is_scheduled("a")
    assert schedule.is_scheduled("b")


def test_only_critical_messages_are_taken_on_request() -> None:
    """Include the messages that a critical one waits for. Otherwise the critical one would wait too."""
    schedule = Schedule()
    other, opened = message("other", lanes=("a",)), message("opened", lanes=("b",))
    critical = message("finished", severity="critical", lanes=("b",))
    schedule.add(other)
    schedule.add(opened)
    assert schedule.next_at(critical_only=True) is None
    assert schedule.pop(0, critical_only=True) is None
    schedule.add(critical)
    assert schedule.next_at(critical_only=True) == 0
    assert schedule.pop(0, critical_only=True) is opened
    schedule.done(opened)
    assert schedule.pop(0, critical_only=True) is critical
    assert schedule.pop(0, critical_only=True) is None
    assert schedule.pop(0) is other


def test_a_digest_is_in_the_lanes_of_all_its_parts() -> None:
    """Keep a digest's order in the lanes of all its parts."""
    schedule = Schedule()
    first, digest = message("first", lanes=("a",)), message("digest", lanes=("a", "b"))
    last = message("last", lanes=("b",))
    for each in (first, digest, last):
        schedule.add(each)
    assert schedule.pop(0) is first
    assert schedule.pop(0) is None
    schedule.done(first)
    assert schedule.pop(0) is digest
    assert schedule.pop(0) is None
    schedule.done(digest)
    assert schedule.pop(0) is last


def test_the_most_severe_goes_first() -> None:
    """Send the most severe message first. Otherwise a critical alert would wait behind a backlog."""
    schedule = Schedule()
    early, late = message("early", lanes=("a",)), message("late", lanes=("b",))
    grave, retried = (message(name, lanes=(name,), severity="critical") for name in ("grave", "retried"))
    for each in (retried, early, late, grave):
        schedule.add(each)
    assert schedule.pop(0) is retried
    schedule.put_back(retried, 5)
    assert [schedule.pop(0), schedule.pop(0)] == [grave, early]
    assert schedule.pop(5) is retried
    assert schedule.pop(5) is late


def test_an_unknown_severity_goes_with_the_warnings() -> None:
    """Order an unknown severity like a warning."""
    schedule = Schedule()
    order = ("info", "severe", "warning", "critical")
    for severity in order:
        schedule.add(message(severity, lanes=(severity,), severity=severity))
    taken = [each.notification.severity for _ in order if (each := schedule.pop(0))]
    assert taken == ["critical", "severe", "warning", "info"]


def test_a_message_inherits_the_severity_of_later_ones_in_its_lanes() -> None:
    """Raise a message to the severity of the later messages in its lanes."""
    schedule = Schedule()
    backlog, opened, failed = (message(name, lanes=(name,)) for name in ("backlog", "opened", "failed"))
    for each in (failed, backlog, opened):
        schedule.add(each)
    assert schedule.pop(0) is failed
    schedule.add(message("finished", lanes=("opened",), severity="critical"))
    schedule.add(message("finished, too", lanes=("failed",), severity="critical"))
    assert schedule.pop(0) is opened
    schedule.put_back(failed, 5)
    assert schedule.next_at() == 0
    assert schedule.pop(5) is failed
    assert schedule.pop(5) is backlog


def test_hasten() -> None:
    """Shorten the pauses of failed messages when their destination answers again."""
    schedule = Schedule()
    messages = [message(str(n), lanes=(str(n),)) for n in range(4)]
    for each in messages:
        schedule.add(each)
    for _ in messages:
        schedule.pop(0)
    for at, each in zip((40, 10, 30, 20), messages, strict=True):
        schedule.put_back(each, at)
    schedule.hasten(15)
    assert [schedule.pop(15) for _ in messages] == [messages[n] for n in (1, 3, 2, 0)]


def test_expired_are_given_up_also_before_their_time() -> None:
    """Give up expired messages, also before their next attempt."""
    schedule = Schedule()
    old, young = message("old", lanes=("a",)), message("young", lanes=("b",))
    old.expires_at = 50
    for each in (old, young):
        schedule.add(each)
        assert schedule.pop(0) is each
        schedule.put_back(each, 1000)
    assert schedule.pop_expired(49, MAX_EXPIRED) == []
    assert schedule.pop_expired(50, MAX_EXPIRED) == [old]
    schedule.done(old)
    assert schedule.pop_expired(LATER, 0) == []
    assert schedule.pop_expired(LATER, MAX_EXPIRED) == [young]


@given(st.data())
def test_every_lane_in_order_and_all_of_them_in_the_end(data: st.DataObject) -> None:
    """Send each lane in order and all messages eventually, for any failures and shared lanes."""
    names = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True).map(tuple)
    severities = st.sampled_from(["info", "warning", "critical"])
    messages = [
        message(str(n), lanes=lanes, severity=data.draw(severities))
        for n, lanes in enumerate(data.draw(st.lists(names, max_size=25)))
    ]
    schedule, to_add = Schedule(), list(messages)
    under_way: list[OutgoingMessage] = []
    done: list[OutgoingMessage] = []
    at: dict[OutgoingMessage, float] = {}
    now = 0.0
    while len(done) < len(messages):
        if data.draw(st.booleans()) and to_add:
            schedule.add(to_add.pop(0))
        elsewhere = {*to_add, *done}
        waits = [each for each in messages if each not in elsewhere]
        first: dict[str, OutgoingMessage] = {}
        for each in waits:
            for lane in each.lanes:
                first.setdefault(lane, each)
        may_go = {
            each
            for each in waits
            if at.get(each, 0) <= now and all(first[lane] is each for lane in each.lanes)
        } - {*under_way}
        taken = schedule.pop(now)
        assert (taken is None) == (not may_go)
        if taken is not None:
            assert gravity(taken, waits) == max(gravity(each, waits) for each in may_go)
            assert not {lane for each in under_way for lane in each.lanes} & set(taken.lanes)
            under_way.append(taken)
        elif under_way:
            ended = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            if data.draw(st.booleans()):
                schedule.done(ended)
                done.append(ended)
            else:
                at[ended] = now + data.draw(st.integers(0, 5))
                schedule.put_back(ended, at[ended])
        elif to_add:
            schedule.add(to_add.pop(0))
        else:
            next_at = schedule.next_at()
            assert next_at is not None
            now = max(now, next_at)
    for lane in "abcd":
        added = [each for each in messages if lane in each.lanes]
        assert [each for each in done if lane in each.lanes] == added
        assert not schedule.is_scheduled(lane)


def gravity(message: OutgoingMessage, waits: list[OutgoingMessage]) -> int:
    """Return the highest severity of the messages that this one holds up."""
    held_up = [each for each in waits if set(each.lanes) & set(message.lanes)]
    return max(["info", "warning", "critical"].index(each.notification.severity) for each in held_up)
