"""Test the publisher without a thread, with a busy lock, and with rare kinds of events."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis.exceptions import RedisClusterException

from deltaloom import LossReport, Publisher
from deltaloom.address import Address
from deltaloom.publishing.freezing import FrozenEntry
from deltaloom.publishing.response_context import text_of
from deltaloom.publishing.sending import Sender, client_of
from deltaloom.publishing.values import reduced
from tests.client.publishing.streams_of_events import balance, completed, delta, done
from tests.client.publishing.test_admission import admission_of, admit, publish, queue_of
from tests.client.publishing.test_publisher import FrozenClient, publishing
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOWHERE = "redis://127.0.0.1:1"


class TakingClient:
    """A client whose pipeline keeps the entries.

    Args:
        replies: function that returns the replies to a number of entries.
    """

    def __init__(self, replies: Callable[[int], list[Any]] = lambda count: [b"1-0"] * count) -> None:
        self.entries: list[dict[str, Any]] = []
        self.replies = replies

    def ping(self) -> None:
        """Answer."""

    def pipeline(self, **_: object) -> TakingClient:
        """Return itself as the pipeline."""
        return self

    def xadd(self, _: str, fields: dict[str, Any]) -> None:
        """Take an entry."""
        self.entries.append(fields)

    def execute(self, **_: object) -> list[Any]:
        """Return the replies."""
        return self.replies(len(self.entries))

    def close(self) -> None:
        """Close nothing."""


# ---- admission


def test_merged_deltas_keep_an_unusual_field() -> None:
    """Publish the field of a delta that no other provider has, though the delta is merged."""
    admission, queue = admission_of(), queue_of()
    events = [delta("reasoning", text, number) | {"own": "x"} for number, text in enumerate("ab")]
    admit(admission, queue, *(event | {"logprobs": []} for event in events))
    assert publish(admission, queue) == [delta("reasoning", "ab", 0) | {"own": "x"}]


def test_repeats_of_many_merged_ranges_are_dropped() -> None:
    """Recognise each repeat, though only some of the merged ranges are remembered."""
    admission, queue = admission_of(), queue_of()
    numbers = [10 * run + step for run in range(1, 60) for step in range(2)]
    for number in numbers:
        admit(admission, queue, delta("reasoning", "a", number))
    assert len(publish(admission, queue)) == 59
    (part,) = queue.parts.values()
    assert len(part.merged) == 32
    admit(admission, queue, *(delta("reasoning", "a", number) for number in numbers))
    assert admission.books.dropped == {"repeated": len(numbers)}
    assert balance(admission.books.snapshot(0)) == 0


@pytest.mark.parametrize(
    ("event", "is_reported"),
    [
        (delta("reasoning", "x" * 5_000, 0), True),
        ({"type": "response.created", "sequence_number": 0, "response": {"model": "x" * 5_000}}, True),
        ({"type": "response.audio.delta", "sequence_number": 0, "delta": "x" * 5_000}, False),
    ],
)
def test_event_beyond_the_size_of_an_event_is_dropped(event: dict[str, Any], *, is_reported: bool) -> None:
    """Drop an event that no worker would accept, report it if it changes a text, and keep its neighbour."""
    admission, queue = admission_of(event_bytes=4_000), queue_of()
    admit(admission, queue, event)
    assert admission.books.dropped == {"too_large": 1}
    assert admission.books.lost == ({"resp_1": 1} if is_reported else {})
    admit(admission, queue, delta("reasoning", "a", 1))
    assert publish(admission, queue)[-1] == delta("reasoning", "a", 1)


def test_copy_of_a_part_is_dropped_before_its_response() -> None:
    """Drop a copy that does not fit, and keep the other events of its response."""
    admission, queue = admission_of(budget=16_000), queue_of()
    copy = {"type": "response.output_item.done", "sequence_number": 0, "item": {"content": "x" * 5_000}}
    admit(admission, queue, copy, completed(1))
    assert admission.books.dropped == {"over_budget": 1}
    assert publish(admission, queue)[-1] == completed(1)


def test_events_without_text_are_dropped_first_when_memory_is_short() -> None:
    """Drop an event that changes no text, without a report of a loss, if answers have little room."""
    admission, queue = admission_of(budget=16_000), queue_of()
    admit(admission, queue, {"type": "response.audio.delta", "sequence_number": 0, "delta": "x" * 12_000})
    assert admission.books.dropped == {"over_budget": 1}
    assert admission.books.lost == {}
    admit(admission, queue, delta("output_text", "a", 1))
    assert publish(admission, queue) == [delta("output_text", "a", 1)]


def test_closing_without_a_text_cannot_be_reduced() -> None:
    """Return no smaller form of a closing that has no text to leave out."""
    assert reduced(done("refusal", "", 0)) is None
    assert reduced({"type": "response.refusal.done", "refusal": 7}) is None


def test_value_without_a_text_is_no_context() -> None:
    """Return an empty text for a value whose conversion fails."""

    class Odd:
        def __str__(self) -> str:
            raise ValueError

    assert text_of(Odd()) == ""


# ---- the thread


def test_close_sends_what_came_while_no_thread_could_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise no error to the caller, and start the thread at the close, if the system had no more threads."""
    client = TakingClient()
    publisher = Publisher(NOWHERE, make_client=lambda: client)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        publisher.stream("resp_1").offer([delta("refusal", "no", 0)])
    counters = publisher.close(30)
    assert (counters.published, counters.dropped) == (1, {})
    assert counters.failures == {"ThreadNotStarted": 1}
    assert [entry["response_id"] for entry in client.entries] == ["resp_1"]


IN_SUBINTERPRETER = """
import deltaloom

publisher = deltaloom.Publisher("redis://127.0.0.1:1")
publisher.stream("resp_1").offer([{"type": "response.completed", "response": {}}])
counters = publisher.close(0.1)
assert counters.dropped == {"closed": 1}, counters
assert counters.failures["ThreadNotStarted"] > 0, counters
"""


def test_a_subinterpreter_without_daemon_threads_is_named(tmp_path: Path) -> None:
    """Raise no error where a thread of the publisher is not allowed, and say why nothing is published."""
    if sys.version_info >= (3, 14):
        code = "from concurrent import interpreters; interpreters.create().exec(SCRIPT)"
    elif sys.version_info >= (3, 13):
        code = "import _interpreters as i; error = i.exec(i.create(), SCRIPT); assert error is None, error"
    else:
        code = "import _xxsubinterpreters as i; i.run_string(i.create(), SCRIPT)"
    file = tmp_path / "run.py"
    file.write_text(f"SCRIPT = {IN_SUBINTERPRETER!r}\n{code}\n")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_closed_publisher_starts_no_thread() -> None:
    """Count an event after the close, without a thread for it."""
    publisher = Publisher(NOWHERE)
    publisher.close(0)
    publisher.stream().offer([completed(0)])
    assert publisher.counters.dropped == {"closed": 1}
    assert publisher._thread is None  # noqa: SLF001 - no other way to see it


def test_close_does_not_wait_for_a_lock() -> None:
    """Return the last counts if another thread holds the lock, and account for the events later."""
    losses: list[LossReport] = []
    with publishing(NOWHERE, on_loss=losses.append) as publisher:
        with publisher._lock:  # noqa: SLF001 - stands for a thread that the system has suspended
            publisher.stream("resp_1").offer([delta("refusal", "no", 0)])
            assert publisher.counters.seen == 0
            assert publisher.close(0).seen == 0
            assert losses == []
        counters = publisher.close(0)
        thread = publisher._thread  # noqa: SLF001 - no other way to see it
        assert thread is not None
        thread.join(30)  # either thread may call the function
    assert (counters.seen, counters.dropped) == (1, {"closed": 1})
    assert [report.dropped for report in losses] == [{"closed": 1}]


async def test_callers_do_not_wake_a_thread_that_is_awake() -> None:
    """Leave the bell alone while the thread works: ringing it costs the caller time."""
    client = FrozenClient()
    with publishing(NOWHERE, budget=64 * 1024, make_client=lambda: client) as publisher:
        publisher.stream().end()  # nothing to send, so the thread goes to sleep
        await wait_until(lambda: not publisher.inbox)
        bell = publisher._bell  # noqa: SLF001 - no other way to see it
        with publisher._lock:  # noqa: SLF001 - so that the thread has taken that and no more
            pass
        stream = publisher.stream()
        stream.offer([delta("refusal", "I", 0)])
        assert client.entered.wait(30)
        bell.acquire(blocking=False)
        for number in range(1, 2 * publisher.inbox_limit):
            stream.offer([delta("output_text", "w", number)])
        stream.offer([delta("output_text", "w" * 100, 2 * publisher.inbox_limit)])
        stream.offer([completed(2 * publisher.inbox_limit + 1)])
        assert bell.locked()
        counters = publisher.close(0)
        client.release.set()
    assert counters.seen == 2 * publisher.inbox_limit + 2
    assert balance(counters) == 0


def test_child_sends_only_its_own_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what waited at a fork to the parent, and number the child's events anew."""
    client = TakingClient()
    publisher = Publisher(NOWHERE, make_client=lambda: client)
    stream = publisher.stream("resp_1")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: None)  # so that the event stays here
        stream.offer([delta("refusal", "parent", None)])
    publisher.begin_in_child()
    stream.offer([delta("refusal", "child", None)])
    counters = publisher.close(30)
    assert (counters.seen, counters.published, counters.dropped) == (1, 1, {})
    assert ["child" in str(entry["event"]) for entry in client.entries] == [True]


class StoppingDict(dict[str, Any]):
    """A value at which the encoder stops until released."""

    def __init__(self) -> None:
        super().__init__(a=1)
        self.entered = threading.Event()
        self.release = threading.Event()

    def items(self) -> Any:
        """Return the items, once released."""
        self.entered.set()
        self.release.wait(30)
        return super().items()


def test_close_counts_events_that_the_thread_is_encoding() -> None:
    """Count each event that has left its queue and is not sent yet, once, and send it no more."""
    client = TakingClient()
    value = StoppingDict()
    with publishing(NOWHERE, make_client=lambda: client) as publisher:
        publisher.stream("resp_1").offer([{"type": "response.created", "response": value}])
        assert value.entered.wait(30)
        counters = publisher.close(0)
        value.release.set()
        thread = publisher._thread  # noqa: SLF001 - no other way to see it
        assert thread is not None
        thread.join(30)
        assert publisher.counters == counters
    assert (counters.seen, counters.dropped, counters.waiting_bytes) == (1, {"closed": 1}, 0)
    assert client.entries == []


def test_fault_in_the_thread_is_counted_and_stops_nothing() -> None:
    """Go on after a client that gives fewer replies than entries, and send the entries again."""
    answers: list[list[Any]] = [[], [b"1-0"]]
    client = TakingClient(lambda _: answers.pop(0))
    with publishing(NOWHERE, make_client=lambda: client) as publisher:
        publisher.stream("resp_1").offer([delta("refusal", "no", 0)])
        counters = publisher.close(30)
    assert counters.failures == {"ValueError": 1}
    assert (counters.published, counters.dropped) == (1, {})


async def test_event_that_the_callback_offers_does_not_wait_for_the_next_one() -> None:
    """Send an event that `on_loss` offers, though the thread has just found nothing to do."""
    client = TakingClient()

    def offer_another(_: LossReport) -> None:
        publisher.stream("resp_2").offer([delta("refusal", "no", 0)])

    with publishing(NOWHERE, make_client=lambda: client, on_loss=offer_another) as publisher:
        stream = publisher.stream("resp_1")
        stream.end()
        stream.offer([delta("refusal", "late", 0)])
        await wait_until(lambda: publisher.counters.published == 1)
    assert [entry["response_id"] for entry in client.entries] == ["resp_2"]


# ---- sending


def test_lost_reply_of_one_entry_leaves_only_that_entry() -> None:
    """Send an entry again if its node's connection broke, and say that it may have arrived."""
    client = TakingClient(lambda _: [b"1-0", RedisConnectionError("lost")])
    sender = Sender(lambda: client)
    entries = [FrozenEntry("deltaloom:deltas", f"resp_{number}", None) for number in range(2)]
    outcome = sender.send(entries)
    assert (outcome.confirmed, outcome.refused, outcome.left) == (entries[:1], [], entries[1:])
    assert outcome.error == "ConnectionError"
    assert entries[1].may_have_arrived


def test_client_behind_sentinels_has_their_logins_apart() -> None:
    """Return a client of the master that logs in to the sentinels with their own password."""
    address = Address.parse("redis+sentinel://me:pw@127.0.0.1:1,127.0.0.1:2/main/3?sentinel_password=other")
    with client_of(address, 0.5) as client:
        assert isinstance(client, Redis)
        options = client.connection_pool.connection_kwargs
        assert (options["username"], options["password"], options["db"]) == ("me", "pw", 3)
        assert options["socket_timeout"] == 0.5
        pool: Any = client.connection_pool
        sentinels = pool.sentinel_manager.sentinels
        asked = [each.connection_pool.connection_kwargs for each in sentinels]
        assert [each["port"] for each in asked] == [1, 2]
        assert [each["password"] for each in asked] == ["other", "other"]


def test_cluster_without_a_node_is_an_error_and_not_a_wait() -> None:
    """Raise at once if no node of a cluster answers, so that the publisher decides when to try again."""
    with pytest.raises(RedisClusterException):
        client_of(Address.parse("redis+cluster://127.0.0.1:1,127.0.0.1:2"), 0.5)
