"""Two shares compared: what is a spike, what is calm, and what is only chance."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.rates.proportions import REFUSED_AT_LEAST, Count, Thresholds, is_calm, is_spike, score

DEFAULT = Thresholds(responses=50, ratio=2, score=5)
DAY = Count(20_000, 200)
"""A day at 1 %."""


@st.composite
def counts(draw: st.DrawFn, *, at_least: int = 0) -> Count:
    """Any count."""
    responses = draw(st.integers(at_least, 10**6) | st.integers(at_least, at_least + 200))
    return Count(responses, draw(st.integers(0, responses)))


thresholds = st.builds(
    Thresholds, responses=st.integers(10, 1000), ratio=st.floats(1, 100), score=st.floats(2, 50)
)


def test_score_is_the_textbooks() -> None:
    """The test would not be the one that the page names.

    By hand: of 200 and 1000, 30 and 50 are 15 % and 5 %; pooled 80 / 1200; the standard error is
    sqrt(1/15 * 14/15 * (1/200 + 1/1000)).
    """
    error = math.sqrt(1 / 15 * 14 / 15 * (1 / 200 + 1 / 1000))
    assert score(Count(200, 30), Count(1000, 50)) == pytest.approx(0.10 / error)
    assert score(Count(200, 30), Count(1000, 50)) == pytest.approx(5.1755, abs=1e-4)


@pytest.mark.parametrize(
    ("window", "baseline"),
    [
        (Count(), DAY),
        (Count(100, 50), Count()),
        (Count(100, 0), Count(1000, 0)),
        (Count(100, 100), Count(1000, 1000)),
        (Count(100, 1), Count(10_000, 100)),
    ],
)
def test_score_of_nothing_to_see_is_nothing(window: Count, baseline: Count) -> None:
    """It would divide by nothing."""
    assert score(window, baseline) == 0


@pytest.mark.parametrize(
    ("window", "baseline", "spike"),
    [
        (Count(200, 40), DAY, True),
        (Count(50, 10), DAY, True),
        (Count(50, 10), Count(50, 0), False),  # so little came before that chance may do it
        (Count(100, 50), Count(50, 0), True),
        (Count(5, 5), DAY, False),  # five responses
        (Count(49, 49), DAY, False),
        (Count(500, 9), Count(20_000, 0), False),  # nine refusals
        (Count(1_000_000, 11_000), Count(1_000_000, 10_000), False),  # sure, but who cares
        (Count(200, 180), Count(2_000, 1_200), True),  # from 60 to 90 %: what is answered has halved
        (Count(200, 150), Count(2_000, 1_200), False),
        (Count(200, 2), DAY, False),
        (Count(200, 0), DAY, False),
    ],
)
def test_spikes(window: Count, baseline: Count, *, spike: bool) -> None:
    """Somebody would be woken for nothing, or not be."""
    assert is_spike(window, baseline, DEFAULT) is spike


@given(counts(), counts(), thresholds)
def test_no_spike_of_a_few(window: Count, baseline: Count, limits: Thresholds) -> None:
    """Five responses, or nine refusals, are no share of anything."""
    if is_spike(window, baseline, limits):
        assert min(window.responses, baseline.responses) >= limits.responses
        assert window.refused >= REFUSED_AT_LEAST
        assert window.share > baseline.share


@given(counts(), counts(), thresholds)
def test_no_spike_is_calm(window: Count, baseline: Count, limits: Thresholds) -> None:
    """A spike would begin and end with every look."""
    if is_spike(window, baseline, limits):
        assert not is_calm(window, baseline, limits)


@given(counts(at_least=1), counts(at_least=1), thresholds)
def test_what_is_no_more_than_before_is_calm(window: Count, baseline: Count, limits: Thresholds) -> None:
    """A spike would never end."""
    assume(window.share <= baseline.share)
    assert is_calm(window, baseline, limits)
    assert is_calm(Count(), baseline, limits)


@given(counts(at_least=1), counts(at_least=1))
def test_score_changes_sides(one: Count, other: Count) -> None:
    """It would depend on which of the two is called the window."""
    assert score(one, other) == pytest.approx(-score(other, one))


@given(counts(at_least=1), counts(at_least=1), st.integers(2, 100))
def test_score_grows_with_what_is_known(window: Count, baseline: Count, times: int) -> None:
    """A hundred times as much traffic with the same shares would be no surer: it is, by the square root."""
    more = Count(window.responses * times, window.refused * times)
    much = Count(baseline.responses * times, baseline.refused * times)
    assert score(more, much) == pytest.approx(score(window, baseline) * math.sqrt(times))


@given(counts(at_least=1), counts(at_least=1), thresholds)
def test_one_refusal_more_ends_no_spike(window: Count, baseline: Count, limits: Thresholds) -> None:
    """Refusing still more would be taken for peace."""
    assume(window.refused < window.responses)
    worse = Count(window.responses, window.refused + 1)
    if is_spike(window, baseline, limits):
        assert is_spike(worse, baseline, limits)
    if not is_calm(window, baseline, limits):
        assert not is_calm(worse, baseline, limits)


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("responses", [50, 500])
def test_chance_makes_no_spike(share: float, responses: int) -> None:
    """With a hundred models and a window every five minutes, chance alone would wake somebody each week."""
    dice = random.Random(1)
    day = Count(20_000, round(20_000 * share))
    for _ in range(3_000):
        window = Count(responses, sum(dice.random() < share for _ in range(responses)))
        assert not is_spike(window, day, DEFAULT), window


def test_counts_add_up() -> None:
    """Baseline and window would overlap, or be less than nothing where they were read one after the other."""
    assert Count(5, 1).plus(Count(2, 2)) == Count(7, 3)
    assert Count(7, 3).without(Count(2, 2)) == Count(5, 1)
    assert Count(1, 0).without(Count(2, 2)) == Count(0, 0)
