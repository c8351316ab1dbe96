"""When a spike begins and ends, and what its alerts say; who may look, and when."""

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
    Rates,
    SpikeWatch,
    Subject,
    Turn,
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
    """What was counted; the same baseline for all, unless it is said."""
    before = dict.fromkeys(window, BEFORE) if baseline is None else baseline
    return Rates(at_ms, at_ms - 300_000, at_ms - DAY_MS, window, before)


def turn(*begun: Change) -> Turn:
    """A turn, with these spikes."""
    return Turn(NOW_MS, 1, {change.subject: change.alert for change in begun})


def begun(subject: Subject = MODEL) -> Change:
    """A spike of this subject."""
    (change,) = changes(turn(), rates({subject: SPIKE}), LIMITS)
    return change


@pytest.mark.parametrize(
    ("subject", "whose"), [(MODEL, "gpt-4o"), (TENANT, "acme"), (PROVIDER, "openai")], ids=str
)
def test_beginning(subject: Subject, whose: str) -> None:
    """Whoever is woken would not know of what, or how bad it is."""
    change = begun(subject)
    alert, rate = change.alert, change.alert.rate
    assert change.begins
    assert (alert.type, alert.severity, alert.text) == ("deltaloom.refusal.spike", "critical", "")
    names = {scope: getattr(alert, scope) for scope in get_args(KnownRateScope)}
    assert names == {**dict.fromkeys(names), subject.scope: whose}
    assert (alert.response_id, alert.kind) == (None, None)
    assert rate is not None
    assert (rate.by, rate.name) == subject
    assert (window_of(rate), baseline_of(rate)) == (SPIKE, BEFORE)
    assert (rate.until - rate.since).total_seconds() == 300
    assert (rate.until - rate.baseline_since).total_seconds() == 86_400
    assert rate.score > 5
    assert alert.raised_at == rate.until == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_spike_begins_once() -> None:
    """It would ring with every look."""
    assert changes(turn(begun()), rates({MODEL: SPIKE}), LIMITS) == []


def test_end_is_measured_by_what_was_before() -> None:
    """A spike that has become a part of its own baseline would seem to be over."""
    first = begun()
    polluted = {MODEL: Count(20_000, 6_000)}
    assert changes(turn(first), rates({MODEL: SPIKE}, polluted), LIMITS) == []
    (change,) = changes(turn(first), rates({MODEL: CALM}, polluted), LIMITS)
    rate = change.alert.rate
    assert not change.begins
    assert (change.alert.type, change.alert.severity) == ("deltaloom.refusal.spike.ended", "info")
    assert change.alert.id == first.alert.id.replace("spike_", "spike_ended_")
    assert rate is not None
    assert (rate.refused, rate.baseline_refused) == (CALM.refused, BEFORE.refused)


def test_end_when_nothing_comes_any_more() -> None:
    """A model that is switched off would stay on fire for a day."""
    (change,) = changes(turn(begun()), rates({}), LIMITS)
    assert (change.begins, change.alert.model) == (False, "gpt-4o")


def test_between_spike_and_calm_nothing_changes() -> None:
    """What hovers at the border would ring all night."""
    hovering = {MODEL: Count(200, 6)}
    assert changes(turn(), rates(hovering), LIMITS) == []
    assert changes(turn(begun()), rates(hovering), LIMITS) == []


def test_what_lasts_as_long_as_a_baseline_is_how_things_are() -> None:
    """A model that refuses more since an update would be on fire for ever, and its next spike not be seen."""
    first = begun()
    later = NOW_MS + DAY_MS
    still = {MODEL: Count(20_000, 6_000)}
    assert changes(turn(first), rates({MODEL: SPIKE}, still, later - 1), LIMITS) == []
    (change,) = changes(turn(first), rates({MODEL: SPIKE}, still, later), LIMITS)
    assert not change.begins
    assert changes(turn(), rates({MODEL: SPIKE}, still, later), LIMITS) == []


def test_others_are_nobody() -> None:
    """Those whose names are not kept are always others: a change of them says nothing."""
    assert changes(turn(), rates({Subject("tenant", OTHER): SPIKE}), LIMITS) == []


def test_subjects_do_not_touch_each_other() -> None:
    """One model's spike would be another's, or end with it."""
    quiet = Subject("model", "acme")  # called like a tenant
    found = changes(turn(begun(TENANT)), rates({MODEL: SPIKE, TENANT: CALM, quiet: CALM}), LIMITS)
    assert [(change.subject, change.begins) for change in found] == [(TENANT, False), (MODEL, True)]


def test_what_is_blocked_is_no_spike() -> None:
    """Whoever sets a stricter filter would be woken by what it stops."""
    assert changes(turn(), rates({MODEL: Count(200, 2, 150)}), LIMITS) == []


def test_scopes_of_a_later_version_are_left_to_it() -> None:
    """A worker of this version would end what a later one has begun, or raise what cannot be told apart."""
    later = Subject("region", "eu")
    lasts = Turn(NOW_MS, 1, {later: begun().alert})
    assert changes(lasts, rates({later: CALM}), LIMITS) == []
    assert changes(turn(), rates({later: SPIKE}), LIMITS) == []


@given(st.text(), st.sampled_from(["model", "tenant", "provider", "region"]))
def test_subject_is_read_back(name: str, scope: str) -> None:
    """A name with a colon would be another one when it is read again."""
    subject = Subject(scope, name)
    assert Subject.parse(str(subject)) == subject


class Storage:
    """Says what it is told to, and notes what is written."""

    def __init__(self, given: Turn | None, *, takes: bool = True) -> None:
        self.given = given
        self.takes = takes
        self.written: list[ModerationAlert] = []
        self.lasts_ms = 0

    async def take_turn(self, lasts_ms: int) -> Turn | None:
        """As told."""
        self.lasts_ms = lasts_ms
        return self.given

    async def counted(self, now_ms: int) -> Rates:
        """A spike."""
        return rates({MODEL: SPIKE}, at_ms=now_ms)

    async def write(self, turn: Turn, changes: Sequence[Change]) -> bool:
        """As told."""
        assert turn is self.given
        self.written += [change.alert for change in changes]
        return self.takes


@pytest.mark.parametrize("takes", [True, False])
async def test_watch_writes_what_it_sees(*, takes: bool) -> None:
    """A spike would be seen, and nobody told."""
    storage = Storage(turn(), takes=takes)
    await SpikeWatch(storage, LIMITS, every=30).look()
    assert [alert.type for alert in storage.written] == ["deltaloom.refusal.spike"]
    assert storage.lasts_ms == 15_000


async def test_watch_waits_for_its_turn() -> None:
    """Every worker would count everything, all the time."""
    storage = Storage(None)
    await SpikeWatch(storage, LIMITS, every=30).look()
    assert storage.written == []


def test_thresholds_are_the_settings() -> None:
    """What the operator sets would have no effect."""
    settings = Settings(spike_responses=11, spike_ratio=3, spike_score=4)
    assert thresholds_of(settings) == Thresholds(11, 3, 4)
