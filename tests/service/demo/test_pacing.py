"""When the demo publishes what."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from service.demo.pacing import publications
from service.demo.stream import Stream, load

STREAMS = load()


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_every_line_is_published_once_and_in_order(stream: Stream) -> None:
    """Something would be left out of the demo, or come too early."""
    entries = publications(stream)
    assert [line for entry in entries for line in entry.lines] == list(stream.lines)
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_times_are_those_of_the_programme(stream: Stream) -> None:
    """The demo would be over too soon, or be longer than it says."""
    entries = publications(stream)
    plan = stream.plan
    assert entries[0].at == plan.begins
    assert entries[-1].at == pytest.approx(plan.begins + plan.thinks + plan.speaks)


def test_pauses_are_shorter_than_the_idle_timeout() -> None:
    """A stream that only draws breath would be given up."""
    for stream in STREAMS:
        times = [entry.at for entry in publications(stream)]
        assert max(b - a for a, b in pairwise(times)) < 1.5


def test_coalesced_entries_are_arrays() -> None:
    """The demo would not show that an entry may hold several events."""
    stream = next(stream for stream in STREAMS if stream.plan.coalesce > 1)
    sizes = {len(json.loads(entry.body)) for entry in publications(stream) if len(entry.lines) > 1}
    assert max(sizes) == stream.plan.coalesce
