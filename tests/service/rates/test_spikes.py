"""Test when a spike begins and ends, the content of its alerts, and the leader lock of the watch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.messages import KnownRateScope
from service.keys import OTHER
from service.rates.proportions import Count, Thresholds
from service.rates.spikes import (
    Change,
    LeaderLock,
    Rates,
    SpikeWatch,
    Subject,
    baseline_of,
    changes,
    thresholds_of,
    window_of,
)
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deltaloom.messages import ModerationAlert

LIMITS = Thresholds(responses=50, ratio=2, score=5)
MODEL, TENANT = Subject("model", "gpt-4o"), Subject("tenant", "acme")
PROVIDER = Subject("provider", "openai")
NOW_MS = 1_767_323_045_000
DAY_MS = 86_400_000
CALM, SPIKE, BEFORE = Count(200, 2, 1), Count(200, 60, 5), Count(20_000, 200, 100)


def rates(
    window: Mapping[Subject, Count], baseline: Mapping[Subject, Count] | None = None, at_ms: int = NOW_MS
) -> Rates:
    """Return rates with these windows. All subjects have the baseline BEFORE unless one is given."""
    before = dict.fromkeys(window, BEFORE) if baseline is None else baseline
    return Rates(at_ms, at_ms - 300_000, at_ms - DAY_MS, window, before)


def lock(*begun: Change) -> LeaderLock:
    """Return a turn in which these spikes have begun."""
    return LeaderLock(NOW_MS, 1, {change.subject: change.alert for change in begun})


def begun(subject: Subject = MODEL) -> Change:
    """Return the change that begins a spike of this subject."""
    (change,) = changes(lock(), rates({subject: SPIKE}), LIMITS)
    return change


@pytest.mark.parametrize(
    ("subject", "expected_name"), [(MODEL, "gpt-4o"), (TENANT, "acme"), (PROVIDER, "openai")], ids=str
)
def test_beginning(subject: Subject, expected_name: str) -> None:
    """Name the subject and give both counts, both periods and the score in the alert."""
    change = begun(subject)
    alert, rate = change.alert, change.alert.rate
    assert change.begins
    assert (alert.type, alert.severity, alert.text) == ("deltaloom.refusal.spike", "critical", "")
    names = {scope: getattr(alert, scope) for scope in get_args(KnownRateScope)}
    assert names == {**dict.fromkeys(names), subject.scope: expected_name}
    assert (alert.response_id, alert.kind) == (None, None)
    assert rate is not None
    assert (rate.by, rate.name) == subject
    assert (window_of(rate), baseline_of(rate)) == (SPIKE, BEFORE)
    assert (rate.until - rate.since).total_seconds() == 300
    assert (rate.until - rate.baseline_since).total_seconds() == 86_400
    assert rate.score > 5
    assert alert.raised_at == rate.until == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_spike_begins_once() -> None:
    """Raise one alert for a spike. Otherwise each look would raise another."""
    assert changes(lock(begun()), rates({MODEL: SPIKE}), LIMITS) == []


def test_end_is_measured_by_the_baseline_before_the_spike() -> None:
    """Compare with the baseline before the spike.

    Otherwise the spike would raise its own baseline and end.
    """
    first = begun()
    polluted = {MODEL: Count(20_000, 6_000)}
    assert changes(lock(first), rates({MODEL: SPIKE}, polluted), LIMITS) == []
    (change,) = changes(lock(first), rates({MODEL: CALM}, polluted), LIMITS)
    rate = change.alert.rate
    assert not change.begins
    assert (change.alert.type, change.alert.severity) == ("deltaloom.refusal.spike.ended", "info")
    assert change.alert.id == first.alert.id.replace("spike_", "spike_ended_")
    assert rate is not None
    assert (rate.refused, rate.baseline_refused) == (CALM.refused, BEFORE.refused)


def test_end_without_traffic() -> None:
    """End the spike of a subject without traffic. Otherwise it would last until the baseline expires."""
    (change,) = changes(lock(begun()), rates({}), LIMITS)
    assert (change.begins, change.alert.model) == (False, "gpt-4o")


def test_between_spike_and_calm_nothing_changes() -> None:
    """Change nothing between the two thresholds.

    Otherwise a value at the border would alternate all night.
    """
    hovering = {MODEL: Count(200, 6)}
    assert changes(lock(), rates(hovering), LIMITS) == []
    assert changes(lock(begun()), rates(hovering), LIMITS) == []


def test_spike_ends_after_a_baseline_period() -> None:
    """End a spike that has lasted one baseline period.

    Otherwise a permanent change would hide the next spike.
    """
    first = begun()
    later = NOW_MS + DAY_MS
    still = {MODEL: Count(20_000, 6_000)}
    assert changes(lock(first), rates({MODEL: SPIKE}, still, later - 1), LIMITS) == []
    (change,) = changes(lock(first), rates({MODEL: SPIKE}, still, later), LIMITS)
    assert not change.begins
    assert changes(lock(), rates({MODEL: SPIKE}, still, later), LIMITS) == []


def test_other_subjects_raise_no_spike() -> None:
    """Raise no spike for the subject "other", which combines subjects whose names are not kept."""
    assert changes(lock(), rates({Subject("tenant", OTHER): SPIKE}), LIMITS) == []


def test_subjects_do_not_touch_each_other() -> None:
    """Keep subjects apart, including a model and a tenant with one name."""
    quiet = Subject("model", "acme")  # has the tenant's name
    found = changes(lock(begun(TENANT)), rates({MODEL: SPIKE, TENANT: CALM, quiet: CALM}), LIMITS)
    assert [(change.subject, change.begins) for change in found] == [(TENANT, False), (MODEL, True)]


def test_blocked_responses_raise_no_spike() -> None:
    """Leave blocked responses out. Otherwise a stricter filter would raise a spike."""
    assert changes(lock(), rates({MODEL: Count(200, 2, 150)}), LIMITS) == []


def test_scopes_of_a_later_version_are_left_to_it() -> None:
    """Leave scopes of a later version unchanged, so that two versions can run together."""
    later = Subject("region", "eu")
    lasts = LeaderLock(NOW_MS, 1, {later: begun().alert})
    assert changes(lasts, rates({later: CALM}), LIMITS) == []
    assert changes(lock(), rates({later: SPIKE}), LIMITS) == []


@given(st.text(), st.sampled_from(["model", "tenant", "provider", "region"]))
def test_subject_is_read_back(name: str, scope: str) -> None:
    """Parse subjects whose names contain colons."""
    subject = Subject(scope, name)
    assert Subject.parse(str(subject)) == subject


class Storage:
    """A storage that returns the given turn and records the alerts written."""

    def __init__(self, given: LeaderLock | None, *, takes: bool = True) -> None:
        self.given = given
        self.takes = takes
        self.written: list[ModerationAlert] = []
        self.lasts_ms = 0

    async def acquire_leader_lock(self, lasts_ms: int) -> LeaderLock | None:
        """Record the duration and return the given turn."""
        self.lasts_ms = lasts_ms
        return self.given

    async def counted(self, now_ms: int) -> Rates:
        """Return rates with a spike."""
        return rates({MODEL: SPIKE}, at_ms=now_ms)

    async def write(self, lock: LeaderLock, changes: Sequence[Change]) -> bool:
        """Record the alerts and return whether the write is accepted."""
        assert lock is self.given
        self.written += [change.alert for change in changes]
        return self.takes


@pytest.mark.parametrize("takes", [True, False])
async def test_watch_writes_alerts(*, takes: bool) -> None:
    """Write the alert of a spike, and take the turn for half the interval."""
    storage = Storage(lock(), takes=takes)
    await SpikeWatch(storage, LIMITS, every=30).look()
    assert [alert.type for alert in storage.written] == ["deltaloom.refusal.spike"]
    assert storage.lasts_ms == 15_000


async def test_watch_waits_for_its_turn() -> None:
    """Do nothing without the turn. Otherwise each worker would count everything."""
    storage = Storage(None)
    await SpikeWatch(storage, LIMITS, every=30).look()
    assert storage.written == []


def test_thresholds_are_the_settings() -> None:
    """Use the operator's settings as thresholds."""
    settings = Settings(spike_responses=11, spike_ratio=3, spike_score=4)
    assert thresholds_of(settings) == Thresholds(11, 3, 4)
