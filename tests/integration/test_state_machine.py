"""The bench in small: hypothesis chooses what is published, who reads, who dies, and between which two steps.

Whatever it chooses, once everything is read and settled the outputs are those that the stream alone asks for.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule, run_state_machine_as_test
from redis.asyncio import Redis

from chaos.model import Event, expected_of
from handlers import BUILT_IN
from service.storage import commit_plan, store
from tests.bench import Bench, Consumer
from tests.waiting import wait_until
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    from deltaloom import AssembledText
    from handlers.core.identity import PartKey
    from service.ports import RawEntry, Settlement

THOROUGH = bool(os.environ.get("DELTALOOM_THOROUGH"))
"""Take minutes, and other examples every time."""

_HANDLERS = [handler for name, handler in BUILT_IN.items() if name != "output_text"]
_RESPONSES = ("resp_a", "resp_b")
_WORKERS = st.sampled_from(["one", "two", "three"])


def _part(event_type: str, output_index: int, number: int | None, **fields: Any) -> Event:
    event = {"type": event_type, "item_id": f"item_{output_index}", "output_index": output_index, **fields}
    event["summary_index" if "summary" in event_type else "content_index"] = 0
    return event if number is None else {**event, "sequence_number": number}


@st.composite
def _events(draw: st.DrawFn) -> list[Event]:
    """An entry's events: of three parts, each with one text, which whoever closes it says as it is."""
    family, output_index, field, copy_type = draw(
        st.sampled_from(
            [
                ("response.refusal", 0, "refusal", "refusal"),
                ("response.reasoning_text", 1, "text", "reasoning_text"),
                ("response.reasoning_summary_text", 1, "text", "summary_text"),
            ]
        )
    )
    number = st.one_of(st.none(), st.integers(0, 3), st.just(7))
    whole = "ab"
    copy = {"type": copy_type, field: whole}
    item_type = "message" if family == "response.refusal" else "reasoning"
    item = {
        "type": item_type,
        "id": f"item_{output_index}",
        "content": [copy] if "summary" not in family else [],
    }
    if "summary" in family:
        item["summary"] = [copy]
    bare = {"type": item_type, "id": f"item_{output_index}", "content": []}

    def delta(text: str) -> Event:
        return _part(f"{family}.delta", output_index, draw(number), delta=text)

    choices = [
        lambda: [delta("a")],
        lambda: [delta("b")],
        lambda: [delta("")],
        lambda: [
            _part(f"{family}.delta", output_index, 1, delta="a"),
            _part(f"{family}.delta", output_index, 2, delta="b"),
        ],
        lambda: [_part(f"{family}.done", output_index, draw(number), **{field: whole})],
        lambda: [{"type": "response.output_item.done", "output_index": output_index, "item": item}],
        lambda: [{"type": "response.output_item.done", "output_index": output_index, "item": bare}],
        lambda: [
            {
                "type": "response.incomplete",
                "response": {"incomplete_details": {"reason": "max_output_tokens"}},
            }
        ],
        lambda: [{"type": "response.completed", "response": {"output": []}}],
        lambda: [{"type": "keepalive"}],
    ]
    events: list[Event] = draw(st.sampled_from(choices))()
    return events


class _Crash(Exception):  # noqa: N818 - not an error of anybody's: a worker that is killed
    """A worker died here."""


_HeldBack = tuple["Sequence[Settlement]", str]


class _Interceptor:
    """A worker's storage whose `settle` can be held back: the worker dies, or others are faster."""

    def __init__(self, storage: store.RedisStorage) -> None:
        self._storage = storage
        self.held_back: list[_HeldBack] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def settle(self, settlements: Sequence[Settlement], history: str) -> Sequence[PartKey]:
        """Settle, or only note what would be."""
        if self.held_back is not None:
            self.held_back.append((settlements, history))
            return []
        return await self._storage.settle(settlements, history)


class Machine(RuleBasedStateMachine):
    """One partition, three workers, and everything that can happen between two steps of theirs."""

    url: str
    prefix: str
    numbers = itertools.count()

    batches = Bundle("batches")
    settlements = Bundle("settlements")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.runner.run(self._begin())
        self.published: dict[str, list[list[Event]]] = {name: [] for name in _RESPONSES}

    async def _begin(self) -> None:
        self.redis = Redis.from_url(self.url)
        self.bench = Bench(self.redis, f"{self.prefix}:{next(self.numbers)}")
        # Every worker takes over what any other holds: as if all of them had been stopped for long.
        self.bench.settings = self.bench.settings.model_copy(update={"claim_time": 0, "max_deliveries": 100})
        self.workers = {name: self._worker(name) for name in ("one", "two", "three")}
        for worker in self.workers.values():
            await worker.group.ensure()

    def _worker(self, name: str) -> Consumer:
        worker = self.bench.consumer(name, _HANDLERS)
        worker.worker._storage = _Interceptor(self.bench.storage)  # noqa: SLF001
        return worker

    def run(self, step: Awaitable[Any]) -> Any:
        """Do one thing to the end."""

        async def to_the_end() -> Any:
            return await step

        return self.runner.run(to_the_end())

    @rule(
        name=st.sampled_from(_RESPONSES),
        groups=st.lists(_events(), min_size=1, max_size=3),
        together=st.booleans(),
    )
    def publish(self, name: str, groups: list[list[Event]], together: bool) -> None:  # noqa: FBT001
        """A producer stores entries of one event or more."""
        if together:
            groups = [list(itertools.chain(*groups))]
        for events in groups:
            self._publish(name, events)

    def _publish(self, name: str, events: list[Event]) -> None:
        self.published[name].append(events)
        self.run(self.bench.publish(json.dumps(events), response_id=name, model="m"))

    @rule(
        name=st.sampled_from(_RESPONSES),
        family=st.sampled_from(["response.refusal", "response.reasoning_text"]),
        created=st.booleans(),
        repeated=st.sampled_from([None, 0, 1, 2]),
        distance=st.integers(1, 2),
    )
    def publish_a_text(
        self,
        name: str,
        family: str,
        created: bool,  # noqa: FBT001
        repeated: int | None,
        distance: int,
    ) -> None:
        """A producer stores a whole text, numbered or not, one of its entries perhaps twice."""
        numbers = [1, 2, 3] if name == _RESPONSES[0] else [None] * 3
        field = "refusal" if family == "response.refusal" else "text"
        events = [
            _part(f"{family}.delta", 0, numbers[0], delta="a"),
            _part(f"{family}.delta", 0, numbers[1], delta="b"),
            _part(f"{family}.done", 0, numbers[2], **{field: "ab"}),
        ]
        if repeated is not None:
            events.insert(repeated + distance, events[repeated])
        if created:
            response = {"model": "other", "safety_identifier": "user"}
            events.insert(0, {"type": "response.created", "response": response})
        for event in events:
            self._publish(name, [event])

    @rule(name=st.sampled_from(_RESPONSES))
    def publish_again(self, name: str) -> None:
        """A producer stores its last entry twice."""
        if self.published[name]:
            self._publish(name, self.published[name][-1])

    @rule(target=batches, worker=_WORKERS, count=st.integers(1, 4))
    def read(self, worker: str, count: int) -> tuple[str, list[RawEntry]]:
        """A worker is given entries, and has not yet done anything with them."""
        return worker, self.run(self.workers[worker].read(count))

    @rule(batch=consumes(batches), stuck=st.booleans())
    def take(self, batch: tuple[str, list[RawEntry]], stuck: bool) -> None:  # noqa: FBT001
        """It does all it does with a batch; others may seem to be stuck with theirs."""
        worker, entries = batch
        with _seeming_stuck(stuck):
            self.run(self.workers[worker].take(entries))

    @rule(batch=batches)
    def take_but_stay(self, batch: tuple[str, list[RawEntry]]) -> None:
        """The same, but it may come again: the reply was lost, or it was stopped and others were faster."""
        worker, entries = batch
        self.run(self.workers[worker].take(entries))

    @rule(target=settlements, batch=consumes(batches), stuck=st.booleans())
    def commit_only(self, batch: tuple[str, list[RawEntry]], stuck: bool) -> list[_HeldBack]:  # noqa: FBT001
        """It stores a batch, reads what could be finished, and is stopped before it writes that."""
        worker, entries = batch
        storage: Any = self.workers[worker].worker._storage  # noqa: SLF001
        storage.held_back = []
        with _seeming_stuck(stuck):
            self.run(self.workers[worker].take(entries))
        held_back: list[_HeldBack] = storage.held_back
        storage.held_back = None
        return held_back

    @rule(target=settlements, worker=_WORKERS, stuck=st.booleans())
    def sweep_only(self, worker: str, stuck: bool) -> list[_HeldBack]:  # noqa: FBT001
        """A sweep is stopped before it writes."""
        storage: Any = self.workers[worker].worker._storage  # noqa: SLF001
        storage.held_back = []
        with _seeming_stuck(stuck):
            self.run(self.workers[worker].worker.sweep())
        held_back: list[_HeldBack] = storage.held_back
        storage.held_back = None
        return held_back

    @rule(held_back=settlements)
    def settle_late(self, held_back: list[_HeldBack]) -> None:
        """The stopped one goes on and writes what it had read; perhaps twice."""
        for each in held_back:
            self.run(self.bench.storage.settle(*each))

    @rule(worker=_WORKERS, stuck=st.booleans())
    def sweep(self, worker: str, stuck: bool) -> None:  # noqa: FBT001
        """A worker looks around."""
        with _seeming_stuck(stuck):
            self.run(self.workers[worker].worker.sweep())

    @rule(batch=consumes(batches))
    def crash(self, batch: tuple[str, list[RawEntry]]) -> None:
        """A worker dies with a batch in its hands; what it held stays pending."""
        self.workers[batch[0]] = self._worker(batch[0])

    @rule(worker=_WORKERS)
    def reclaim(self, worker: str) -> None:
        """A worker takes over whatever anybody holds."""
        self.run(self.workers[worker].reclaimer.reclaim())

    @rule()
    def flush_scripts(self) -> None:
        """The server forgets the scripts."""
        self.run(self.redis.script_flush())

    def teardown(self) -> None:
        """Everything is read, taken over and settled; then the outputs are what the stream asks for."""
        try:
            self.run(self._drain())
            self.run(self._compare())
        finally:
            self.run(self._end())
            self.runner.close()

    async def _drain(self) -> None:
        last = self._worker("last")
        while entries := await last.read():
            await last.take(entries)
        await last.reclaimer.reclaim()
        await last.worker.sweep()
        # Nothing comes any more: what is open is given up.
        impatient = self.bench.settings.model_copy(update={"idle_timeout": 0.001})
        last.worker._settings = impatient  # noqa: SLF001

        async def nothing_open() -> bool:
            await last.worker.sweep()
            return not await self.bench.redis.zcard(self.bench.names.name("open"))

        await wait_until(nothing_open, message="what is open is given up")

    async def _compare(self) -> None:
        prefix = self.bench.prefix
        expected = {
            name: expected_of([list(events) for events in entries], name, {"model": "m"})
            for name, entries in self.published.items()
        }
        wanted = [
            (
                name,
                text.part.kind,
                text.text,
                text.status,
                text.reason,
                text.integrity,
                text.context.get("safety_identifier"),
            )
            for name, response in expected.items()
            for text in response.texts
        ]
        got = await texts(self.redis, prefix)
        assert sorted(map(_result, got), key=str) == sorted(wanted, key=str)
        refusals = sum(
            text.part.kind == "refusal" for response in expected.values() for text in response.texts
        )
        raised = Counter(alert.type for alert in await alerts(self.redis, prefix))
        assert raised == +Counter(
            {"deltaloom.refusal.opened": refusals, "deltaloom.refusal.finished": refusals}
        )
        assert await dead_letters(self.redis, prefix) == []
        counted = await counts(self.redis, prefix)
        keepalives = sum(response.types["keepalive"] for response in expected.values())
        assert counted.get("type:keepalive", 0) == keepalives
        deltas = sum(
            event["type"].endswith(".delta") for e in self.published.values() for x in e for event in x
        )
        used = sum(text.delta_count + text.duplicate_count for text in got)
        assert used + counted.get("late", 0) == deltas
        await self._nothing_is_left()

    async def _nothing_is_left(self) -> None:
        names = self.bench.names
        assert await self.bench.pending() == {}
        assert await self.redis.exists(names.name("open"), names.name("waiting")) == 0
        assert [key async for key in self.redis.scan_iter(match=names.name("log:*"), count=1000)] == []

    async def _end(self) -> None:
        keys = [key async for key in self.redis.scan_iter(match=f"{self.bench.prefix}:*", count=1000)]
        if keys:
            await self.redis.delete(*keys)
        await self.redis.aclose()


def _result(text: AssembledText) -> tuple[Any, ...]:
    return (
        text.response_id,
        text.kind,
        text.text,
        text.status,
        text.reason,
        text.integrity,
        text.safety_identifier,
    )


class _seeming_stuck:  # noqa: N801 - reads as what it does, in a with statement
    """While it lasts, a worker that holds an entry is taken for stuck at once, if `stuck`; else never."""

    def __init__(self, stuck: bool) -> None:  # noqa: FBT001
        self._after_ms = -1 if stuck else 10**9

    def __enter__(self) -> None:
        self._before = commit_plan.STALLED_MS
        commit_plan.STALLED_MS = self._after_ms

    def __exit__(self, *_: object) -> None:
        commit_plan.STALLED_MS = self._before


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log lines: there would be thousands."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.timeout(3600 if THOROUGH else 300)
@pytest.mark.usefixtures("quiet")
def test_whatever_is_done_between_any_two_steps_the_outputs_are_the_streams(
    redis_url: str, prefix: str
) -> None:
    """Every promise of the two scripts, in an order of steps nobody thought of."""
    machine = type("Machine", (Machine,), {"url": redis_url, "prefix": prefix})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=3000 if THOROUGH else 150,
            stateful_step_count=40 if THOROUGH else 25,
            deadline=None,
            derandomize=not THOROUGH,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
