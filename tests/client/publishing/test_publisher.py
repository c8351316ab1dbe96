"""Test the publisher with a real server, in each state that a server can be in."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

import deltaloom
from deltaloom import LossReport, Partitions, Publisher, limits
from deltaloom.address import Address
from deltaloom.publishing.sending import client_of
from tests.client.publishing.streams_of_events import (
    balance,
    completed,
    delta,
    events_of,
    refusal,
    texts_of,
)
from tests.users import password, rules_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.client.publishing.conftest import OwnServer

WORDS = ["I", "'m", " sorry", ",", " but", " no", "."]


@contextmanager
def publishing(url: str, **settings: Any) -> Iterator[Publisher]:
    """Run a publisher for the duration of the block."""
    publisher = Publisher(url, **settings)
    try:
        yield publisher
    finally:
        publisher.close(0)


def test_publisher_is_exported_on_first_use() -> None:
    """Offer the names of the publisher at the top of the library."""
    assert deltaloom.Publisher is Publisher
    assert {"Publisher", "PublisherCounters", "ResponseStream", "LossReport"} <= set(dir(deltaloom))


async def test_events_arrive_in_order_with_their_context_once(
    redis_url: str, prefix: str, redis: Any
) -> None:
    """Publish all events of a response, in order, with the context in the first entry only."""
    with publishing(redis_url, prefix=prefix) as publisher:
        stream = publisher.stream("resp_1", tenant="acme", reference="r-1", provider="openai")
        stream.add_context(model="m-1", tenant="late", unknown="x")
        events = refusal(WORDS)
        stream.offer(events[:3])
        await wait_until(lambda: publisher.counters.waiting == 0)
        stream.offer(events[3:])
        await wait_until(lambda: publisher.counters.waiting == 0)
        stream.end()
        counters = publisher.close()
    assert counters.waiting == 0
    assert counters.dropped == {}
    entries = [fields for _, fields in await redis.xrange(f"{prefix}:deltas")]
    merged = [
        events[0],
        events[1] | {"delta": "'m sorry"},
        events[3] | {"delta": ", but no."},
        *events[-2:],
    ]
    assert events_of(entries) == {"resp_1": merged}
    context = [{name: value for name, value in fields.items() if name != b"event"} for fields in entries]
    assert context[0] == {
        b"response_id": b"resp_1",
        b"tenant": b"acme",
        b"reference": b"r-1",
        b"provider": b"openai",
        b"model": b"m-1",
    }
    assert all(fields == {b"response_id": b"resp_1"} for fields in context[1:])


def test_response_goes_into_its_partition(own_server: OwnServer) -> None:
    """Write each response into the partition of its id."""
    with publishing(own_server.url, partitions=4) as publisher:
        for response_id in ("resp_1", "ответ-7", "é"):
            publisher.stream(response_id).offer([delta("refusal", "no", 0)])
        publisher.close(10)
    for response_id in ("resp_1", "ответ-7", "é"):
        entries = own_server.entries(Partitions(4).of(response_id).deltas)
        assert response_id in events_of(entries)


def test_streams_without_an_id_get_one() -> None:
    """Make an id, and replace what UTF-8 cannot express, without an error."""
    publisher = Publisher()
    ids = {publisher.stream().response_id for _ in range(10)}
    assert len(ids) == 10
    assert publisher.stream("\ud800").response_id == "?"
    assert len(publisher.stream("x" * 5000).response_id) == 1024


async def test_context_beyond_its_limit_takes_no_memory(redis_url: str, prefix: str, redis: Any) -> None:
    """Cut a long value to one character more than its limit, so that a worker sees that it is long."""
    with publishing(redis_url, prefix=prefix) as publisher:
        stream = publisher.stream("resp_1", tenant="x" * 1_000_000, model="m" * limits.NAME)
        stream.add_context(reference="y" * 1_000_000)
        stream.offer([completed(0)])
        publisher.close(10)
    ((_, fields),) = await redis.xrange(f"{prefix}:deltas")
    sizes = {name: len(value) for name, value in fields.items() if name not in {b"event", b"response_id"}}
    assert sizes == {
        b"tenant": limits.NAME + 1,
        b"model": limits.NAME,
        b"reference": limits.REFERENCE + 1,
    }


@pytest.mark.parametrize(
    "settings", [{"budget": 1}, {"share": 0}, {"share": 1.5}, {"url": "http://x"}, {"partitions": -1}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    """Refuse a wrong setting when the publisher is made, not later."""
    with pytest.raises(ValueError, match=r"budget|share|URL|partitions"):
        Publisher(**settings)


@pytest.mark.parametrize(
    "odd", [None, 7, "text", {"a": 1}, [None], [7], [{}], [{"type": 7, "delta": 8}], [{"type": []}]]
)
def test_odd_offers_raise_no_error(odd: Any) -> None:
    """Accept any value without an error, and count it."""
    publisher = Publisher()
    stream = publisher.stream()
    stream.offer(odd)
    stream.offer([])
    stream.end()
    stream.end()
    counters = publisher.close(0)
    assert balance(counters) == 0
    assert counters.waiting == 0


def test_events_after_the_end_and_after_close_are_counted(own_server: OwnServer) -> None:
    """Drop events after the end of their response, and all after `close`, with their reasons."""
    with publishing(own_server.url) as publisher:
        stream, other = publisher.stream(), publisher.stream()
        stream.offer([completed(0)])
        stream.end()
        stream.offer([delta("refusal", "x", 1)])
        publisher.close(10)
        other.offer([delta("refusal", "x", 0)])
        other.offer([delta("output_text", "x", 1)])
        counters = publisher.close()
    assert counters.published == 1
    assert counters.dropped == {"after_end": 1, "closed": 2}
    assert balance(counters) == 0


async def test_first_delta_of_a_refusal_and_closings_do_not_linger(own_server: OwnServer) -> None:
    """Send urgent events at once, while others still wait for their time."""
    with publishing(own_server.url, linger=3600) as publisher:
        plain, urgent = publisher.stream("plain"), publisher.stream("urgent")
        plain.offer([delta("output_text", "a", 0)])
        urgent.offer([delta("refusal", "I", 0)])
        await wait_until(lambda: publisher.counters.published == 1)
        urgent.offer([delta("refusal", "'m", 1)])
        urgent.offer(refusal(["I", "'m"])[2:3])
        await wait_until(lambda: publisher.counters.published == 3)
        urgent.offer([completed(3)])
        await wait_until(lambda: publisher.counters.published == 4)
        assert set(events_of(own_server.entries())) == {"urgent"}
        plain.end()
        await wait_until(lambda: publisher.counters.published == 5)


def nowhere() -> str:
    """Return the address of a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"redis://127.0.0.1:{free.getsockname()[1]}"


def password_is_wrong(server: OwnServer) -> str:
    """Let the server ask for a password, and return an address with another one."""
    with server.client() as client:
        client.config_set("requirepass", "right")
    return server.url.replace("redis://", "redis://:wrong@")


STATES: dict[str, Callable[[OwnServer], tuple[str, AbstractContextManager[None]]]] = {
    "stopped": lambda _: (nowhere(), nullcontext()),
    "hung": lambda server: (server.url, server.stopped()),
    "full": lambda server: (server.url, server.full()),
    "wrong password": lambda server: (password_is_wrong(server), nullcontext()),
    "no such name": lambda _: ("redis://no-such-host.invalid:6379", nullcontext()),
}


@pytest.mark.parametrize("state", STATES)
def test_unusable_server_costs_the_caller_nothing_and_losses_are_reported(
    own_server: OwnServer, state: str
) -> None:
    """Take any number of events, keep the budget, close in time, and account for each event."""
    losses: list[LossReport] = []
    url, disturbed = STATES[state](own_server)
    budget = 256 * 1024
    with disturbed, publishing(url, budget=budget, on_loss=losses.append, timeout=0.2) as publisher:
        streams = [publisher.stream() for _ in range(4)]
        for number in range(5_000):
            for stream in streams:
                stream.offer([delta("reasoning", "word " * 5, number)])
        for stream in streams:
            stream.offer([completed(5_000)])
        assert publisher.counters.waiting_bytes <= budget
        began = time.monotonic()
        counters = publisher.close(0.3)
        assert time.monotonic() - began < 5
    assert counters.seen == 20_004
    assert counters.waiting == counters.published == counters.waiting_bytes == 0
    assert balance(counters) == 0
    assert sum(sum(report.dropped.values()) for report in losses) == 20_004
    assert sum(sum(report.responses.values()) for report in losses) == 20_004


@pytest.mark.parametrize("state", ["hung", "full"])
async def test_server_that_recovers_gets_everything_once(own_server: OwnServer, state: str) -> None:
    """Deliver each word once when the server is well again, though the first batch was sent several times."""
    words = [f"<{number}>" for number in range(300)]
    _, disturbed = STATES[state](own_server)
    with publishing(own_server.url, timeout=0.2) as publisher:
        stream = publisher.stream("resp_1")
        events = refusal(words)
        with disturbed:
            stream.offer(events[:1])
            await wait_until(lambda: sum(publisher.counters.failures.values()) >= 3)
            for event in events[1:]:
                stream.offer([event])
        await wait_until(lambda: publisher.counters.waiting == 0)
        counters = publisher.close(10)
    assert counters.dropped == {}
    arrived = events_of(own_server.entries())["resp_1"]
    assert texts_of(arrived) == {("response.refusal.delta", 0): "".join(words)}


async def test_losses_are_reported_on_the_stream(own_server: OwnServer) -> None:
    """Report exactly the dropped events of each response when the server is well again."""
    with publishing(own_server.url, budget=128 * 1024) as publisher:
        streams = [publisher.stream(f"resp_{number}") for number in range(3)]
        with own_server.full():
            for number in range(2_000):
                for stream in streams:
                    stream.offer([delta("reasoning", f"<{number}>", number)])
        for stream in streams:
            stream.offer([completed(2_000)])
        await wait_until(lambda: publisher.counters.waiting == 0)
        await wait_until(lambda: publisher.counters.reports >= 3)
        counters = publisher.close(10)
    arrived = events_of(own_server.entries())
    dropped = 0
    for response_id, events in arrived.items():
        reported = sum(each["dropped"] for each in events if each["type"] == "deltaloom.producer.loss")
        text = texts_of(each for each in events if "delta" in each)["response.reasoning_text.delta", 0]
        assert text.count("<") == 2_000 - reported, response_id
        dropped += reported
    assert dropped == sum(counters.dropped.values()) > 0


async def test_report_of_responses_without_a_name(own_server: OwnServer) -> None:
    """Report the losses of more than 1,024 responses in one record of the process, and lose no count."""
    with publishing(own_server.url) as publisher:
        with own_server.full():
            for number in range(3_000):
                publisher.stream(f"resp_{number}").offer([7])  # type: ignore[list-item] # not an event
            await wait_until(lambda: publisher.counters.dropped == {"invalid": 3_000})
            await wait_until(lambda: bool(publisher.counters.failures))
        await wait_until(lambda: sum(reported(own_server).values()) == 3_000, message="all are reported")
    assert 0 < reported(own_server)[""] < 3_000


def reported(server: OwnServer) -> dict[str, int]:
    """Return the numbers of dropped events that were reported, by response id; `` for none."""
    return {
        response_id: sum(event["dropped"] for event in events if event["type"] == "deltaloom.producer.loss")
        for response_id, events in events_of(server.entries()).items()
    }


class FrozenClient:
    """A client whose thread never comes back."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def ping(self) -> None:
        """Stop until released."""
        self.entered.set()
        self.release.wait()
        raise ConnectionError

    def close(self) -> None:
        """Close nothing."""


class SlowClient(FrozenClient):
    """A client that takes entries, and whose confirmation does not come."""

    def ping(self) -> None:
        """Answer."""

    def pipeline(self, **_: object) -> SlowClient:
        """Return itself as the pipeline."""
        return self

    def xadd(self, *_: object) -> None:
        """Take an entry."""

    def execute(self, **_: object) -> list[object]:
        """Stop until released."""
        super().ping()
        return []


def test_close_during_the_first_attempt_does_not_say_that_nothing_arrived() -> None:
    """Call entries unconfirmed, not lost, if the publisher is closed while it waits for their replies."""
    client = SlowClient()
    with publishing("redis://x", make_client=lambda: client) as publisher:
        publisher.stream().offer([delta("refusal", "I", 0)])
        assert client.entered.wait(30)
        counters = publisher.close(0.1)
        client.release.set()
    assert counters.dropped == {"unconfirmed": 1}


def test_frozen_thread_costs_the_caller_nothing() -> None:
    """Keep the budget and the accounts, and close in time, while the thread does not run."""
    client = FrozenClient()
    budget = 256 * 1024
    with publishing("redis://x", budget=budget, make_client=lambda: client) as publisher:
        stream = publisher.stream()
        stream.offer([delta("refusal", "I", 0)])
        assert client.entered.wait(30)
        for number in range(1, 20_001):
            stream.offer([delta("output_text", "word", number)])
        stream.offer([{"type": "response.completed", "response": {"output": ["x" * 100_000]}}])
        assert len(stream._queue.fresh) <= publisher.inbox_limit  # noqa: SLF001 - no other way to see it
        assert publisher.counters.waiting_bytes <= budget
        counters = publisher.close(0.1)
        client.release.set()
    assert counters.seen == 20_002
    assert sum(counters.dropped.values()) == 20_002
    assert counters.waiting == 0


async def test_entry_that_the_server_will_never_take_costs_only_itself(own_server: OwnServer) -> None:
    """Drop and report the events of a key of another type, and go on with other partitions."""
    names = Partitions(2)
    broken = next(f"r{n}" for n in range(9) if names.of(f"r{n}").partition == 0)
    good = next(f"r{n}" for n in range(9) if names.of(f"r{n}").partition == 1)
    with own_server.client() as client:
        client.set(names.of(broken).deltas, "not a stream")
    with publishing(own_server.url, partitions=2) as publisher:
        publisher.stream(broken).offer([delta("refusal", "a", 0)])
        publisher.stream(good).offer([delta("refusal", "b", 0)])
        await wait_until(lambda: publisher.counters.published == 1)
        assert publisher.close(1).dropped == {"refused": 1}


async def test_callback_that_fails_stops_nothing(own_server: OwnServer) -> None:
    """Go on if the owner's function raises an error."""

    def fail(report: LossReport) -> None:
        raise RuntimeError(report)

    with publishing(own_server.url, on_loss=fail) as publisher:
        stream = publisher.stream()
        stream.offer([7])  # type: ignore[list-item] # not an event
        await wait_until(lambda: publisher.counters.dropped == {"invalid": 1})
        stream.offer([delta("refusal", "b", 0)])
        await wait_until(lambda: publisher.counters.published == 1)


def test_many_threads_share_a_publisher(own_server: OwnServer) -> None:
    """Count and publish each event of many threads once."""
    with publishing(own_server.url) as publisher:

        def produce(which: int) -> None:
            stream = publisher.stream(f"resp_{which}")
            for number in range(500):
                stream.offer([delta(("refusal", "output_text")[number % 2], f"<{number}>", number)])
            stream.end()

        threads = [threading.Thread(target=produce, args=(which,)) for which in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counters = publisher.close(30)
    assert (counters.seen, counters.dropped) == (4_000, {})
    assert counters.published + counters.merged == 4_000
    for events in events_of(own_server.entries()).values():
        texts = texts_of(events)
        assert texts["response.refusal.delta", 0] == "".join(f"<{n}>" for n in range(0, 500, 2))
        assert texts["response.output_text.delta", 0] == "".join(f"<{n}>" for n in range(1, 500, 2))


def test_counters_as_prometheus_text(own_server: OwnServer) -> None:
    """Write the counters in the text format of Prometheus."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    with publishing(own_server.url) as publisher:
        stream = publisher.stream()
        stream.offer([delta("refusal", "a", 0), 7])  # type: ignore[list-item] # not an event
        counters = publisher.close(10)
    families = {family.name: family for family in text_string_to_metric_families(counters.prometheus())}
    samples = {
        (sample.labels["outcome"], sample.labels["reason"]): sample.value
        for sample in families["deltaloom_publisher_events"].samples
    }
    assert samples == {("published", ""): 1, ("merged", ""): 0, ("dropped", "invalid"): 1}
    assert families["deltaloom_publisher_seen"].samples[0].value == 2


def test_client_of_the_publisher_does_not_retry(own_server: OwnServer) -> None:
    """Send each command once: only the publisher retries."""
    with client_of(Address.parse(own_server.url), 1.0) as client:
        retry = client.get_retry()
        assert retry is not None
        assert retry.get_retries() == 0


async def test_rights_of_a_producer_are_enough(own_server: OwnServer) -> None:
    """Need no right beyond those of the user `producer`."""
    with own_server.client() as client:
        client.execute_command("ACL", "SETUSER", "producer", *rules_of("producer"))
    url = own_server.url.replace("redis://", f"redis://producer:{password('producer')}@")
    with publishing(url) as publisher:
        publisher.stream().offer([delta("refusal", "a", 0)])
        await wait_until(lambda: publisher.counters.published == 1)
        assert publisher.counters.failures == {}


def test_lock_that_is_held_for_long_costs_no_memory() -> None:
    """Drop and count deltas beyond the budget while another thread holds the lock, and keep the end."""
    with publishing("redis://127.0.0.1:1", budget=64 * 1024) as publisher:
        stream = publisher.stream("resp_1")
        limit = publisher.inbox_limit
        with publisher._lock:  # noqa: SLF001 - stands for a thread that the system has suspended
            for number in range(20 * limit):
                stream.offer([delta("output_text", "w", number)])
            stream.offer([completed(20 * limit)])
            kept = sum(isinstance(offer, list) for offer in stream._queue.fresh)  # noqa: SLF001 - the same
        assert kept <= 4 * limit + 1
        assert isinstance(stream._queue.fresh[-1], list)  # noqa: SLF001 - the same
        counters = publisher.counters
        assert counters.dropped["over_budget"] >= 16 * limit
        assert (counters.seen, balance(counters)) == (20 * limit + 1, 0)


def test_odd_offers_beyond_the_limit_are_counted() -> None:
    """Count an odd offer that comes while the deques are full. It must not take a place in them for ever."""
    odd: list[Any] = [[None], [7], 7, [{"type": []}]]
    with publishing("redis://127.0.0.1:1", budget=64 * 1024) as publisher:
        stream = publisher.stream("resp_1")
        with publisher._lock:  # noqa: SLF001 - stands for a thread that the system has suspended
            for number in range(publisher.inbox_limit):
                stream.offer([delta("output_text", "w", number)])
            for each in odd:
                stream.offer(each)
            offers = publisher.inbox_limit + len(odd)
            assert len(stream._queue.fresh) == offers  # noqa: SLF001 - the same
        counters = publisher.counters
        assert (counters.seen, balance(counters)) == (offers, 0)


@pytest.mark.parametrize("field", ["output_index", "item_id"])
def test_odd_values_cost_only_their_event(own_server: OwnServer, field: str) -> None:
    """Drop a delta whose place cannot be compared or has no hash, and publish its neighbours."""

    class Unequal:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise ValueError(other)

    with publishing(own_server.url) as publisher:
        stream = publisher.stream("resp_1")
        events = [delta("reasoning", str(number), number) for number in range(4)]
        events[2][field] = Unequal()
        stream.offer(events)
        counters = publisher.close(10)
    assert counters.dropped == {"invalid": 1}
    assert (counters.seen, balance(counters), counters.waiting) == (4, 0, 0)
    arrived = [event["delta"] for event in events_of(own_server.entries())["resp_1"] if "delta" in event]
    assert "".join(arrived) == "013"


def test_a_dict_that_is_offered_is_no_context(own_server: OwnServer) -> None:
    """Count a dict in place of a list of events as invalid, and add no field to the entry."""
    with publishing(own_server.url) as publisher:
        stream = publisher.stream("resp_1")
        stream.offer({"tenant": "x"})  # type: ignore[arg-type] # not a sequence of events
        stream.offer([delta("reasoning", "a", 0)])
        assert publisher.close(10).dropped == {"invalid": 1}
    assert [set(fields) for fields in own_server.entries()] == [{b"event", b"response_id"}]


def test_many_streams_need_no_more_entries_each(own_server: OwnServer) -> None:
    """Send all responses that wait at once, though they are more than a batch takes."""
    with publishing(own_server.url, linger=3600) as publisher:
        streams = [publisher.stream() for _ in range(3_000)]
        for number in range(2):
            for stream in streams:
                stream.offer([delta("output_text", "w", number)])
        assert publisher.counters.entries == 0
        counters = publisher.close(30)
    assert (counters.entries, counters.dropped) == (3_000, {})
