"""Windows and digests: what goes out at once, what is held, and what a digest says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from service.alerts.destinations.options import Grouping
from service.alerts.sending.grouping import EXAMPLES, Windows, digest_called, digest_of
from service.alerts.sending.schedule import Schedule
from tests.service.alerts.made import NOW
from tests.service.alerts.messages import message

if TYPE_CHECKING:
    from service.alerts.sending.message import Message

GROUPING = Grouping.model_validate({"by": ["category", "model"], "window": 60, "from": 3})


def opened(n: int, **of: Any) -> Message:
    """The opened alert of the nth response."""
    return message(f"opened_{n}", response_id=f"resp_{n}", number=n, **of)


def finished(n: int, **of: Any) -> Message:
    """Its finished alert."""
    return message(f"finished_{n}", phase="refusal.finished", response_id=f"resp_{n}", number=n + 500, **of)


def windows(on_its_way: Schedule | None = None) -> Windows:
    """Windows of a destination on its way to which is what is scheduled."""
    return Windows(GROUPING, (on_its_way or Schedule()).busy)


def test_first_ones_alone_the_rest_as_one() -> None:
    """Fifty messages about one thing are fifty times noise; none for a minute is silence."""
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
    """The next alert may come before the relay collects the window: the held ones would never be sent."""
    held = windows()
    alerts = [opened(n) for n in range(5)]
    for each in alerts[:4]:
        held.place(each, 0)
    assert held.place(alerts[4], 61) == []
    assert held.ended(61) == [alerts[2:]]


def test_a_digest_expires_with_the_first_of_its_alerts() -> None:
    """A later end would try to send an alert of which nobody wants to hear any more."""
    members = [replace(opened(n), expires_at=100.0 + n) for n in (3, 1, 2)]
    assert digest_of("on-call", members, GROUPING.by).expires_at == 101


def test_only_similar_ones_share_a_window() -> None:
    """A flood of one kind must not hold back the only one of another."""
    held = windows()
    for n in range(5):
        held.place(opened(n), 0)
    other = opened(9, category="self-harm")
    assert held.place(other, 1) == [other]


def test_end_follows_its_beginning_into_the_digest() -> None:
    """Else it would say that something ended of which nobody was told."""
    held = windows()
    for n in range(3):
        held.place(opened(n), 0)
    assert held.place(finished(2), 1) == []
    assert [each.notification.id for each in held.ended(60)[0]] == ["opened_2", "finished_2"]


def test_graver_end_takes_its_beginning_along() -> None:
    """A refusal that turns out to be about self-harm must not wait for the digest of harmless ones."""
    held = windows()
    alerts = [opened(n) for n in range(4)]
    for each in alerts:
        held.place(each, 0)
    graver = finished(2, category="self-harm", severity="critical")
    assert held.place(graver, 1) == [alerts[2], graver]
    assert held.ended(60) == [[alerts[3]]]


def test_end_goes_after_a_beginning_that_is_on_its_way() -> None:
    """What is held could not be sent before everything else by the next process, after a crash."""
    schedule = Schedule()
    held = windows(schedule)
    for n in range(3):
        for each in held.place(opened(n), 0):
            schedule.add(each)
    end = finished(0)
    assert held.place(end, 1) == [end]


def test_fullest_window_goes_early() -> None:
    """A flood of one kind would keep everything behind it from being read, until its window ends."""
    held = windows()
    assert held.end_fullest() == ()
    of_other_kind = [opened(n, category="violence") for n in range(20, 23)]
    alerts = [opened(n) for n in range(6)]
    for each in (*of_other_kind, *alerts):
        held.place(each, 0)
    assert held.end_fullest() == alerts[2:]
    late = opened(7)
    assert held.place(late, 1) == [], "the window goes on"
    assert held.ended(60) == [of_other_kind[2:], [late]]


def test_single_one_is_no_digest() -> None:
    """Of one alert, the alert itself tells more than "1 similar alert" would."""
    single = opened(1)
    assert digest_of("on-call", [single], GROUPING.by) is single


def test_digest_counts_and_shows() -> None:
    """A digest has to say how many of what there were, and give a few to look at."""
    later = NOW + timedelta(seconds=30)
    members = [
        opened(1),
        finished(1, text="whole"),
        opened(2, severity="critical"),
        opened(3),
        opened(4, raised_at=later),
    ]
    digest = digest_of("on-call", members, GROUPING.by)
    told = digest.notification.digest
    assert told is not None
    assert (told.count, told.since, told.until) == (5, NOW, later)
    assert list(told.counts) == [("refusal.opened · gpt-x", 4), ("refusal.finished · gpt-x", 1)]
    assert [each.id for each in told.examples] == ["opened_2", "finished_1", "opened_3"]
    assert len(told.examples) == EXAMPLES
    assert digest.notification.severity == "critical"
    assert not digest.notification.resolves
    assert [place.id.ms for place in digest.places] == [1, 501, 2, 3, 4]
    assert len(digest.lanes) == 4


def test_digest_of_what_nobody_knows_yet() -> None:
    """A digest would be as grave as a word that no destination knows, or as none."""
    members = [opened(1, severity="info"), opened(2, severity="severe", type="deltaloom.prompt.flagged")]
    digest = digest_of("on-call", members, ["phase", "provider", "reason_class"])
    told = digest.notification.digest
    assert told is not None
    assert digest.notification.severity == "severe"
    assert list(told.counts) == [("refusal.opened · gpt-x", 1), ("prompt.flagged · gpt-x", 1)]
    assert digest.notification.group == "digest/phase='opened',provider=-,reason_class=-"


def test_id_of_a_digest_is_the_same_every_time() -> None:
    """A receiver drops by its id what comes twice, from whichever process."""
    members = [opened(1), opened(2)]
    first = digest_of("on-call", members, GROUPING.by).notification
    assert first.id == digest_of("on-call", members, GROUPING.by).notification.id
    assert first.id != digest_of("elsewhere", members, GROUPING.by).notification.id
    assert first.id == digest_called(first.id, members[:1], GROUPING.by).notification.id


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["a", "b"]), st.integers(0, 40), st.booleans()),
        max_size=40,
    )
)
def test_nothing_is_lost_doubled_or_out_of_order(steps: list[tuple[int, str, int, bool]]) -> None:
    """However alerts come: each goes out once, and of one part in the order in which they came."""
    schedule = Schedule()
    held = windows(schedule)
    came: list[Message] = []
    went: list[Message] = []
    now = 0.0

    def deliver() -> None:
        while (message := schedule.take(now)) is not None:
            went.append(message)
            schedule.done(message)

    def end_windows() -> None:
        for members in held.ended(now):
            schedule.add(digest_of("on-call", members, GROUPING.by))

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
    numbers = [place.id.ms for each in went for place in each.places]
    assert sorted(numbers) == list(range(1, len(came) + 1))
    for part in range(6):
        of_part = [each.places[0].id.ms for each in came if f"resp_{part}/" in each.lanes[0]]
        assert [number for number in numbers if number in of_part] == of_part
