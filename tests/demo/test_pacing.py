"""Test the schedule of the demo's publications."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from demo.pacing import publications
from demo.stream import Stream, load

STREAMS = load()


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_every_line_is_published_once_and_in_order(stream: Stream) -> None:
    """Publish each line once and in order."""
    entries = publications(stream)
    assert [line for entry in entries for line in entry.lines] == list(stream.lines)
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_times_are_those_of_the_programme(stream: Stream) -> None:
    """Begin and end a stream at the times of its plan."""
    entries = publications(stream)
    plan = stream.plan
    assert entries[0].at == plan.begins
    assert entries[-1].at == pytest.approx(plan.begins + plan.thinks + plan.speaks)


def test_pauses_are_shorter_than_the_idle_timeout() -> None:
    """Keep pauses below the idle timeout. Otherwise a pausing stream would be abandoned."""
    for stream in STREAMS:
        times = [entry.at for entry in publications(stream)]
        assert max(b - a for a, b in pairwise(times)) < 1.5


def test_coalesced_entries_are_arrays() -> None:
    """Publish arrays, to show that an entry may hold several events."""
    stream = next(stream for stream in STREAMS if stream.plan.coalesce > 1)
    sizes = {len(json.loads(entry.body)) for entry in publications(stream) if len(entry.lines) > 1}
    assert max(sizes) == stream.plan.coalesce
