"""Test the cases under steady load: the shape of a burst, and the search for the highest rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.competitors import OURS
from bench.entries import load
from bench.ground import Ground
from bench.live import Live
from bench.measurements.paced import figures
from bench.measurements.paced.burst import in_step
from bench.measurements.paced.highest_rate import highest, ladder
from bench.options import Options
from bench.progress import Progress
from bench.results import Results
from bench.stage import Stage

RAN = Live(
    seconds=10,
    events=1000,
    pace=1,
    read=0.99,
    worker_cpu=0.5,
    server_cpu=0.4,
    commands=2500,
    texts=[0.004, 0.006],
    alerts=[0.002],
    wrong=[],
)


@pytest.fixture
def stage() -> Stage:
    """Return a run that records figures, without a server."""
    place = Ground("redis://localhost:1", "nowhere", owned=False)
    return Stage(Options((), ()), place, Results(), Progress(), "paced")


def noted(stage: Stage, ran: Live, alone: Live) -> dict[str, float | None]:
    """Return the figures that are recorded of a run, by name."""
    figures.note(stage, "a case", OURS, ran, alone)
    return {figure.what: value for figure, (value,) in stage.results.rounds.items()}


def test_figures_are_in_the_units_of_their_names(stage: Stage) -> None:
    """Record shares of a core in %, delays in ms, and what the server needs beyond the publisher."""
    assert noted(stage, RAN, RAN._replace(server_cpu=0.1)) == {
        "worker CPU, %": pytest.approx(5),
        "server CPU, %": pytest.approx(4),
        "server CPU beyond the publisher, %": pytest.approx(3),
        "commands an event": 2.5,
        "text p50, ms": 6,
        "text p99, ms": 6,
        "texts": 2,
        "alert p50, ms": 2,
        "alert p99, ms": 2,
        "alerts": 1,
        "read, %": 99,
        "pace kept, %": 100,
    }


def test_a_run_with_a_slow_publisher_is_void(stage: Stage) -> None:
    """Record only its pace. Otherwise a competitor would look good at a rate that it did not get."""
    recorded = noted(stage, RAN._replace(pace=0.97), RAN)
    assert {what for what, value in recorded.items() if value is not None} == {"pace kept, %"}


def test_a_competitor_that_falls_behind_has_no_costs(stage: Stage) -> None:
    """Record delays only. Otherwise a worker would look cheap because it did less."""
    recorded = noted(stage, RAN._replace(read=0.97), RAN)
    assert {what for what, value in recorded.items() if value is None} == {
        "worker CPU, %",
        "server CPU, %",
        "server CPU beyond the publisher, %",
        "commands an event",
    }


def test_nothing_is_beyond_a_publisher_that_was_slow_alone(stage: Stage) -> None:
    """Subtract no processor time of the server that belongs to another rate."""
    recorded = noted(stage, RAN, RAN._replace(pace=0.97))
    assert [what for what, value in recorded.items() if value is None] == [
        "server CPU beyond the publisher, %"
    ]


def test_all_texts_of_a_burst_close_together() -> None:
    """Close one text of each open response in the same fiftieth of a second, when each has one event."""
    open_responses, responses = 10, 3
    input_ = load("test", in_step(open_responses, 20, responses), "stream")
    fiftieths = [number // open_responses for number in input_.closes.values()]
    assert len(set(fiftieths)) == 2 * responses
    assert all(fiftieths.count(each) == open_responses for each in fiftieths)
    assert min(fiftieths) == 4 + 20


@given(st.integers(min_value=0, max_value=200_000))
def test_the_highest_rate_is_found(limit: int) -> None:
    """Find the highest rate that is kept up with, in a bounded number of tries."""
    tried = []

    def keeps_up(rate: int) -> bool:
        tried.append(rate)
        return rate <= limit

    rates = ladder()
    assert highest(rates, keeps_up) == max((rate for rate in rates if rate <= limit), default=0)
    assert len(tried) <= 6
