"""Test the comparison of two refusal shares: spike, calm, or chance."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.rates.proportions import REFUSED_AT_LEAST, Count, Thresholds, is_calm, is_spike, score

DEFAULT = Thresholds(responses=50, ratio=2, score=5)
DAY = Count(20_000, 200)
"""The count of a day with a refusal share of 1 %."""


@st.composite
def counts(draw: st.DrawFn, *, at_least: int = 0) -> Count:
    """Return any count of at least `at_least` responses."""
    responses = draw(st.integers(at_least, 10**6) | st.integers(at_least, at_least + 200))
    return Count(responses, draw(st.integers(0, responses)))


thresholds = st.builds(
    Thresholds, responses=st.integers(10, 1000), ratio=st.floats(1, 100), score=st.floats(2, 50)
)


def test_score_is_the_textbooks() -> None:
    """Compute the two-proportion z-score that the documentation names.

    By hand: 30 of 200 and 50 of 1000 are 15 % and 5 %. Pooled: 80 of 1200. The standard error is sqrt(1/15 *
    14/15 * (1/200 + 1/1000)).
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
def test_score_without_a_difference_is_zero(window: Count, baseline: Count) -> None:
    """Return 0 if there is no variance, no data, or no difference. Otherwise it would divide by zero."""
    assert score(window, baseline) == 0


@pytest.mark.parametrize(
    ("window", "baseline", "spike"),
    [
        (Count(200, 40), DAY, True),
        (Count(50, 10), DAY, True),
        (Count(50, 10), Count(50, 0), False),  # the baseline is too small: chance explains it
        (Count(100, 50), Count(50, 0), True),
        (Count(5, 5), DAY, False),  # five responses
        (Count(49, 49), DAY, False),
        (Count(500, 9), Count(20_000, 0), False),  # nine refusals
        (Count(1_000_000, 11_000), Count(1_000_000, 10_000), False),  # significant, but too small a ratio
        (Count(200, 180), Count(2_000, 1_200), True),  # the share that is not refused falls from 40 to 10 %
        (Count(200, 150), Count(2_000, 1_200), False),
        (Count(200, 2), DAY, False),
        (Count(200, 0), DAY, False),
    ],
)
def test_spikes(window: Count, baseline: Count, *, spike: bool) -> None:
    """Report a spike exactly if all thresholds are exceeded. Otherwise people would be paged wrongly."""
    assert is_spike(window, baseline, DEFAULT) is spike


@given(counts(), counts(), thresholds)
def test_no_spike_of_a_few(window: Count, baseline: Count, limits: Thresholds) -> None:
    """Require a minimum of responses and refusals, and a larger share than the baseline's."""
    if is_spike(window, baseline, limits):
        assert min(window.responses, baseline.responses) >= limits.responses
        assert window.refused >= REFUSED_AT_LEAST
        assert window.share > baseline.share


@given(counts(), counts(), thresholds)
def test_no_spike_is_calm(window: Count, baseline: Count, limits: Thresholds) -> None:
    """Never report spike and calm together. Otherwise each look would begin and end a spike."""
    if is_spike(window, baseline, limits):
        assert not is_calm(window, baseline, limits)


@given(counts(at_least=1), counts(at_least=1), thresholds)
def test_share_at_most_the_baselines_is_calm(window: Count, baseline: Count, limits: Thresholds) -> None:
    """Report calm if the share is at most the baseline's. Otherwise a spike would never end."""
    assume(window.share <= baseline.share)
    assert is_calm(window, baseline, limits)
    assert is_calm(Count(), baseline, limits)


@given(counts(at_least=1), counts(at_least=1))
def test_score_changes_its_sign(one: Count, other: Count) -> None:
    """Change the sign of the score when window and baseline are swapped."""
    assert score(one, other) == pytest.approx(-score(other, one))


@given(counts(at_least=1), counts(at_least=1), st.integers(2, 100))
def test_score_grows_with_traffic(window: Count, baseline: Count, times: int) -> None:
    """Scale the score by the square root of the traffic at equal shares."""
    more = Count(window.responses * times, window.refused * times)
    much = Count(baseline.responses * times, baseline.refused * times)
    assert score(more, much) == pytest.approx(score(window, baseline) * math.sqrt(times))


@given(counts(at_least=1), counts(at_least=1), thresholds)
def test_one_refusal_more_ends_no_spike(window: Count, baseline: Count, limits: Thresholds) -> None:
    """Report no end of a spike if one refusal is added."""
    assume(window.refused < window.responses)
    worse = Count(window.responses, window.refused + 1)
    if is_spike(window, baseline, limits):
        assert is_spike(worse, baseline, limits)
    if not is_calm(window, baseline, limits):
        assert not is_calm(worse, baseline, limits)


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("responses", [50, 500])
def test_chance_makes_no_spike(share: float, responses: int) -> None:
    """Report no spike by chance in 3,000 windows. Otherwise a hundred models would cause weekly pages."""
    dice = random.Random(1)
    day = Count(20_000, round(20_000 * share))
    for _ in range(3_000):
        window = Count(responses, sum(dice.random() < share for _ in range(responses)))
        assert not is_spike(window, day, DEFAULT), window


def test_counts_add_up() -> None:
    """Add and subtract counts, never below 0 even if they were read at different moments."""
    assert Count(5, 1).plus(Count(2, 2)) == Count(7, 3)
    assert Count(7, 3).without(Count(2, 2)) == Count(5, 1)
    assert Count(1, 0).without(Count(2, 2)) == Count(0, 0)
