"""Test grouping: alerts that are sent at once, alerts that are held, and digests."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from service.alerts.destinations.options import Grouping
from service.alerts.sending.grouping import EXAMPLES, Windows, make_digest, rebuild_digest
from service.alerts.sending.schedule import Schedule
from tests.service.alerts.made import NOW
from tests.service.alerts.messages import message

if TYPE_CHECKING:
    from service.alerts.sending.message import OutgoingMessage

GROUPING = Grouping.model_validate({"by": ["category", "model"], "window": 60, "from": 3})


def opened(n: int, **of: Any) -> OutgoingMessage:
    """Return the opened alert of the nth response."""
    return message(f"opened_{n}", response_id=f"resp_{n}", number=n, **of)


def finished(n: int, **of: Any) -> OutgoingMessage:
    """Return the finished alert of the nth response."""
    return message(f"finished_{n}", phase="refusal.finished", response_id=f"resp_{n}", number=n + 500, **of)


def windows(schedule: Schedule | None = None) -> Windows:
    """Return the windows of a destination with this schedule."""
    return Windows(GROUPING, (schedule or Schedule()).is_scheduled)


def test_first_alerts_are_sent_singly_and_the_rest_as_a_digest() -> None:
    """Send the first alerts singly, and the rest as a digest at the window's end."""
    held = windows()
    alerts = [opened(n) for n in range(6)]
    out = [held.place(each, float(n)) for n, each in enumerate(alerts)]
    assert out == [[alerts[0]], [alerts[1]], [], [], [], []]
    assert held.next_end() == 60
    assert held.ended(59) == []
    assert held.ended(60) == [alerts[2:]]
    assert held.next_end() is None
    assert held.place(opened(7), 61) != [], "a new window begins with the next one"


def test_an_alert_after_the_end_of_a_window_keeps_what_is_held() -> None:
    """Hold an alert after the window's end as well, until the relay has collected the window."""
    held = windows()
    alerts = [opened(n) for n in range(5)]
    for each in alerts[:4]:
        held.place(each, 0)
    assert held.place(alerts[4], 61) == []
    assert held.ended(61) == [alerts[2:]]


def test_a_digest_expires_with_the_first_of_its_alerts() -> None:
    """Expire a digest with its first alert. Otherwise it would include alerts past their time."""
    members = [replace(opened(n), expires_at=100.0 + n) for n in (3, 1, 2)]
    assert make_digest("on-call", members, GROUPING.by).expires_at == 101


def test_only_similar_ones_share_a_window() -> None:
    """Hold back only similar alerts in a window."""
    held = windows()
    for n in range(5):
        held.place(opened(n), 0)
    other = opened(9, category="self-harm")
    assert held.place(other, 1) == [other]


def test_end_follows_its_beginning_into_the_digest() -> None:
    """Hold a finished alert whose opened alert is held. Otherwise it would refer to an unsent alert."""
    held = windows()
    for n in range(3):
        held.place(opened(n), 0)
    assert held.place(finished(2), 1) == []
    assert [each.notification.id for each in held.ended(60)[0]] == ["opened_2", "finished_2"]


def test_more_severe_end_takes_its_beginning_along() -> None:
    """Send a held opened alert with its more severe finished alert."""
    held = windows()
    alerts = [opened(n) for n in range(4)]
    for each in alerts:
        held.place(each, 0)
    more_severe = finished(2, category="self-harm", severity="critical")
    assert held.place(more_severe, 1) == [alerts[2], more_severe]
    assert held.ended(60) == [[alerts[3]]]


def test_end_goes_after_a_beginning_that_is_on_its_way() -> None:
    """Send a finished alert if its opened alert is already scheduled, to keep their order after a crash."""
    schedule = Schedule()
    held = windows(schedule)
    for n in range(3):
        for each in held.place(opened(n), 0):
            schedule.add(each)
    end = finished(0)
    assert held.place(end, 1) == [end]


def test_fullest_window_goes_early() -> None:
    """End the fullest window early. Otherwise a flood of one kind would block reading."""
    held = windows()
    assert held.empty_fullest() == ()
    of_other_kind = [opened(n, category="violence") for n in range(20, 23)]
    alerts = [opened(n) for n in range(6)]
    for each in (*of_other_kind, *alerts):
        held.place(each, 0)
    assert held.empty_fullest() == alerts[2:]
    late = opened(7)
    assert held.place(late, 1) == [], "the window has not ended"
    assert held.ended(60) == [of_other_kind[2:], [late]]


def test_single_alert_is_not_a_digest() -> None:
    """Send a single held alert as itself."""
    single = opened(1)
    assert make_digest("on-call", [single], GROUPING.by) is single


def test_digest_counts_and_shows() -> None:
    """Count a digest's alerts, and include a few examples."""
    later = NOW + timedelta(seconds=30)
    members = [
        opened(1),
        finished(1, text="whole"),
        opened(2, severity="critical"),
        opened(3),
        opened(4, raised_at=later),
    ]
    digest = make_digest("on-call", members, GROUPING.by)
    contents = digest.notification.digest
    assert contents is not None
    assert (contents.count, contents.since, contents.until) == (5, NOW, later)
    assert list(contents.counts) == [("refusal.opened · gpt-x", 4), ("refusal.finished · gpt-x", 1)]
    assert [each.id for each in contents.examples] == ["opened_2", "finished_1", "opened_3"]
    assert len(contents.examples) == EXAMPLES
    assert digest.notification.severity == "critical"
    assert not digest.notification.resolves
    assert [ref.id.ms for ref in digest.refs] == [1, 501, 2, 3, 4]
    assert len(digest.lanes) == 4


def test_digest_of_unknown_types() -> None:
    """Use the highest severity of a digest's alerts, also an unknown one, and group unknown values."""
    members = [opened(1, severity="info"), opened(2, severity="severe", type="deltaloom.prompt.flagged")]
    digest = make_digest("on-call", members, ["phase", "provider", "reason_class"])
    contents = digest.notification.digest
    assert contents is not None
    assert digest.notification.severity == "severe"
    assert list(contents.counts) == [("refusal.opened · gpt-x", 1), ("prompt.flagged · gpt-x", 1)]
    assert digest.notification.dedup_key == "digest/phase='opened',provider=-,reason_class=-"


def test_id_of_a_digest_is_the_same_every_time() -> None:
    """Derive a digest's id from its first alert, so that a receiver can drop repeats of any process."""
    members = [opened(1), opened(2)]
    first = make_digest("on-call", members, GROUPING.by).notification
    assert first.id == make_digest("on-call", members, GROUPING.by).notification.id
    assert first.id != make_digest("elsewhere", members, GROUPING.by).notification.id
    assert first.id == rebuild_digest(first.id, members[:1], GROUPING.by).notification.id


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["a", "b"]), st.integers(0, 40), st.booleans()),
        max_size=40,
    )
)
def test_nothing_is_lost_doubled_or_out_of_order(steps: list[tuple[int, str, int, bool]]) -> None:
    """Send each alert once, and those of one part in order."""
    schedule = Schedule()
    held = windows(schedule)
    came: list[OutgoingMessage] = []
    went: list[OutgoingMessage] = []
    now = 0.0

    def deliver() -> None:
        while (message := schedule.pop(now)) is not None:
            went.append(message)
            schedule.done(message)

    def end_windows() -> None:
        for members in held.ended(now):
            schedule.add(make_digest("on-call", members, GROUPING.by))

    for number, (part, category, pause, delivers) in enumerate(steps):
        now += pause
        end_windows()
        each = message(f"alert_{number}", response_id=f"resp_{part}", category=category, number=number + 1)
        came.append(each)
        for out in held.place(each, now):
            schedule.add(out)
        if delivers:
            deliver()
    now += 60
    end_windows()
    deliver()
    numbers = [ref.id.ms for each in went for ref in each.refs]
    assert sorted(numbers) == list(range(1, len(came) + 1))
    for part in range(6):
        of_part = [each.refs[0].id.ms for each in came if f"resp_{part}/" in each.lanes[0]]
        assert [number for number in numbers if number in of_part] == of_part
