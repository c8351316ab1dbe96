"""What need not be told again, because it was told before."""

from __future__ import annotations

from handlers.core.effects import Context
from handlers.core.identity import EntryId
from service.storage.told import ToldResponse

ACME = (Context(tenant="acme"), False)
ACME_AND_MODEL = (Context(tenant="acme", model="m"), False)


def at(ms: int) -> EntryId:
    """An entry of this time."""
    return EntryId(ms, 0)


def test_the_same_again_is_known_and_an_earlier_one_is_news() -> None:
    """The earliest entry that says something wins: one that comes late must reach the server."""
    told = ToldResponse("response:r", "state")
    assert not told.knows({ACME: at(5)})
    told.tell({ACME: at(5)})
    assert told.knows({ACME: at(5)})
    assert told.knows({ACME: at(6)})
    assert not told.knows({ACME: at(4)})
    told.tell({ACME: at(4)})
    assert told.knows({ACME: at(4)})


def test_less_than_was_told_is_known_and_more_is_news() -> None:
    """Entries of a response do not all say the same of it."""
    told = ToldResponse("response:r", "state")
    told.tell({ACME_AND_MODEL: at(5)})
    assert told.knows({ACME: at(5)})
    assert not told.knows({ACME: at(4)})
    assert not told.knows({(Context(traceparent="t"), False): at(6)})
    assert not told.knows({(Context(tenant="acme"), True): at(6)}), "learned is another register than said"


def test_nothing_said_is_known() -> None:
    """Most events of a producer without a context say nothing."""
    assert ToldResponse("response:r", "state").knows({})


def test_what_differs_in_each_event_takes_no_room() -> None:
    """Producers that say another `traceparent` with each event would fill a worker's memory."""
    told = ToldResponse("response:r", "state")
    traces = [(Context(tenant="acme", traceparent=f"{number}"), False) for number in range(1, 1000)]
    told.tell({ACME: at(0)})
    for number, trace in enumerate(traces, 1):
        told.tell({trace: at(number)})
    assert len(told._said) < 10  # noqa: SLF001 - the room that it takes
    assert all(told.knows({trace: at(number)}) for number, trace in enumerate(traces, 1))
    assert not told.knows({(Context(traceparent="new"), False): at(0)})
