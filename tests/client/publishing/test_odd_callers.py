"""Test the publisher with odd sequences, odd strings, and callers that are interrupted."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import UserList, deque
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from deltaloom import LossReport, Publisher
from tests.client.publishing.streams_of_events import balance, delta, refusal
from tests.client.publishing.test_admission import admission_of, admit, publish, queue_of
from tests.client.publishing.test_publisher import publishing
from tests.client.publishing.test_rare_cases import NOWHERE, TakingClient
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


class EventType(StrEnum):
    """Types of events, as callers with enums have them."""

    REFUSAL = "response.refusal.delta"
    REASONING = "response.reasoning_text.delta"


class Word(str):
    """A string of a class of the caller."""

    __slots__ = ()

    def __str__(self) -> NoReturn:
        raise RuntimeError


class Array:
    """A sequence whose truth has no value, like an array of numpy."""

    def __bool__(self) -> NoReturn:
        raise ValueError

    def __len__(self) -> int:
        return 3


class Interrupted(dict[str, Any]):
    """An event at whose reading Ctrl-C is pressed."""

    def get(self, *_: Any) -> NoReturn:
        """Be interrupted."""
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [tuple, deque, UserList])
def test_each_kind_of_sequence_is_published(kind: Callable[[Any], Any]) -> None:
    """Publish the events of any sequence."""
    client = TakingClient()
    with publishing(NOWHERE, make_client=lambda: client) as publisher:
        publisher.stream("resp_1").offer(kind(refusal(["a", "b"])))
        counters = publisher.close(10)
    assert (counters.seen, counters.published, counters.dropped) == (4, 4, {})


@pytest.mark.parametrize("odd", [Array(), (event for event in refusal("a")), {"a"}, b"ab", "no"])
def test_what_is_no_sequence_counts_as_one_event(odd: Any) -> None:
    """Count an offer that is no sequence, without running its code."""
    with publishing(NOWHERE, make_client=TakingClient) as publisher:
        publisher.stream("resp_1").offer(odd)
        counters = publisher.close(10)
    assert (counters.seen, counters.dropped) == (1, {"invalid": 1})


def test_strings_of_other_classes_are_strings() -> None:
    """Send the first delta of a refusal at once and merge deltas, though their strings are of a subclass."""
    admission, queue = admission_of(), queue_of()
    first, *more = (
        delta(kind, "", number, output_index=output_index) | {"type": event_type, "delta": Word(word)}
        for number, (kind, event_type, output_index, word) in enumerate(
            [
                ("refusal", EventType.REFUSAL, 0, "No"),
                ("reasoning", EventType.REASONING, 1, "a"),
                ("reasoning", EventType.REASONING, 1, "b"),
            ]
        )
    )
    admit(admission, queue, first)
    assert queue in admission.urgent
    admit(admission, queue, *more)
    assert publish(admission, queue) == [
        delta("refusal", "No", 0),
        delta("reasoning", "ab", 1, output_index=1),
    ]


@pytest.mark.parametrize("field", ["logprobs", "snapshot"])
def test_large_fields_of_a_delta_count(field: str) -> None:
    """Count all of a delta that waits by itself against the budget and the maximum size of an event."""
    admission, queue = admission_of(), queue_of()
    admit(admission, queue, delta("reasoning", "a", 0) | {field: ["x" * 10_000]})
    assert admission.delta_bytes > 10_000
    publish(admission, queue)
    admit(admission, queue, delta("reasoning", "b", 1) | {field: ["x" * 2_000_000]})
    assert admission.books.dropped.keys() <= {"too_large", "over_budget"}
    assert admission.books.waiting == 0


DEEP = """
import sys
from deltaloom.publishing.admission import ResponseQueue, WaitingEvent
from deltaloom.publishing.freezing import freeze
from deltaloom.publishing.values import Value, bytes_of

sys.setrecursionlimit(1_000_000)
endless = {"type": "x"}
endless["a"] = endless["b"] = endless
deep = []
for _ in range(200_000):
    deep = [deep]
doubled = "x"
for _ in range(40):
    doubled = [doubled, doubled]
long = "x" * 1_000_000
events = [{"type": "y"}, endless, {"deep": deep}, {"doubled": doubled}]
events += [{"long": [long] * 70}, {"named": [{long: 1}] * 70}]
group = [WaitingEvent(event, Value.ANSWER, None, bytes_of(event)) for event in events]
entry, bad = freeze(ResponseQueue("r", "k", {}), group, 0, {})
assert (entry.event, bad) == (b'[{"type":"y"}]', 5), (entry.event[:99], bad)
print("alive", flush=True)
"""


def test_endless_event_does_not_end_a_process_with_a_high_limit_of_recursion() -> None:
    """Drop events that no stack or memory has room for; Python's own limit does not protect the process."""
    done = subprocess.run([sys.executable, "-c", DEEP], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n", (done.returncode, done.stderr[-500:])


async def test_interrupted_offer_loses_only_its_event() -> None:
    """Let Ctrl-C through to the caller, count the event that it hit, and go on."""
    client = TakingClient()
    with publishing(NOWHERE, make_client=lambda: client, linger=3600) as publisher:
        stream = publisher.stream("resp_1")
        first, *others = refusal(["a", "b", "c"])
        with pytest.raises(KeyboardInterrupt):
            stream.offer([first, Interrupted(first), Interrupted(first)])
        stream.offer(others)
        await wait_until(lambda: publisher.counters.published >= len(others))
        counters = publisher.close(10)
    assert (counters.seen, balance(counters), counters.waiting) == (7, 0, 0)
    assert counters.dropped == {"invalid": 2}


async def test_exit_in_a_callback_does_not_end_the_thread() -> None:
    """Go on if `on_loss` calls `sys.exit`, which would end the thread without a trace."""

    def leave(_: LossReport) -> NoReturn:
        raise SystemExit

    with publishing(NOWHERE, make_client=TakingClient, on_loss=leave) as publisher:
        stream = publisher.stream("resp_1")
        stream.offer([7])  # type: ignore[list-item] # not an event
        await wait_until(lambda: publisher.counters.failures.get("SystemExit") == 1)
        stream.offer([delta("refusal", "b", 0)])
        await wait_until(lambda: publisher.counters.published == 1)


@pytest.mark.parametrize("name", ["linger", "timeout", "exit_timeout"])
@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_seconds_out_of_range_are_refused(name: str, seconds: float) -> None:
    """Refuse seconds with which the thread would end at once."""
    settings: dict[str, Any] = {name: seconds}
    with pytest.raises(ValueError, match=f"{name}="):
        Publisher(**settings)


def test_close_may_wait_for_ever() -> None:
    """Accept an unlimited timeout."""
    with publishing(NOWHERE, make_client=TakingClient) as publisher:
        publisher.stream("resp_1").offer([delta("refusal", "b", 0)])
        assert publisher.close(math.inf).published == 1
