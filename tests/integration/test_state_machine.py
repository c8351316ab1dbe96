"""The workers, script by script: hypothesis chooses what is published, who reads, who goes on and who dies.

A worker stops before each script that it runs, and others may go on meanwhile: two have planned their commits
before either commits; one has read what it may finish, and writes it later; another looks around in between.
Whatever is chosen, once everything is read and settled the outputs are those that the stream alone asks for.

The entries have ids of an hour ago, a good second apart. So whoever looks around while everything is handled
finds every open response silent and gives it up. Who looks while anything is unread or in hand may not.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
from collections import Counter
from contextvars import ContextVar
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from chaos.model import Bad, Event, Silence, expected_of
from deltaloom import GROUP
from handlers import BUILT_IN
from handlers.core.identity import EntryId
from handlers.core.routing import RoutingTable
from service.storage import commit_plan, scripts
from tests.bench import Bench, Consumer
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable, Iterator

    from deltaloom import AssembledText
    from service.ports import RawEntry

THOROUGH = bool(os.environ.get("DELTALOOM_THOROUGH"))
"""Take minutes, and other examples every time."""

HOUR_MS = 3_600_000
IDLE_MS = 600_000
APART_MS = 1100
"""Milliseconds between two entries: more than the second that a response's latest entry is rounded up by."""

_HANDLERS = [handler for name, handler in BUILT_IN.items() if name != "output_text"]
_RESPONSES = ("resp_a", "resp_b")
_NAMES = st.sampled_from([_RESPONSES[0]] * 3 + [_RESPONSES[1]])
_WORKERS = st.sampled_from(["one", "two", "three"])
_SOME = st.sampled_from([slice(None), slice(1), slice(2), slice(1, None)])
"""Which entries of a batch."""


def _part(event_type: str, output_index: int, number: int | None, **fields: Any) -> Event:
    event = {"type": event_type, "item_id": f"item_{output_index}", "output_index": output_index, **fields}
    event["summary_index" if "summary" in event_type else "content_index"] = 0
    return event if number is None else {**event, "sequence_number": number}


@st.composite
def _final_outputs(draw: st.DrawFn) -> list[Event]:
    """Draw a response's final output: each item at its position, with or without its id and its texts."""
    message = {"type": "message", "content": [{"type": "refusal", "refusal": "ab"}]}
    reasoning = {
        "type": "reasoning",
        "content": draw(st.sampled_from([[], [{"type": "reasoning_text", "text": "ab"}]])),
        "summary": draw(st.sampled_from([[], [{"type": "summary_text", "text": "ab"}]])),
    }
    items = [message, reasoning][: draw(st.integers(1, 2))]
    if draw(st.booleans()):
        return [{**item, "id": f"item_{position}"} for position, item in enumerate(items)]
    return items


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
        lambda: [
            {"type": "response.failed", "response": {"error": {"code": "content_policy_violation"}}},
        ],
        lambda: [{"type": "response.completed", "response": {"output": []}}],
        lambda: [{"type": "response.completed", "response": {"output": draw(_final_outputs())}}],
        lambda: [{"type": "keepalive"}],
    ]
    events: list[Event] = draw(st.sampled_from(choices))()
    return events


def _with_one_end(events: Iterable[Event]) -> list[Event]:
    """Return the events with the first end of the response only: a second one would contradict it."""
    ends = ("response.completed", "response.incomplete", "response.failed")
    kept: list[Event] = []
    for event in events:
        if event["type"] not in ends or not any(other["type"] in ends for other in kept):
            kept.append(event)
    return kept


class _Work:
    """What a worker is doing: it stops before every script, until it is let go on."""

    def __init__(self, *, stuck: bool) -> None:
        self.script = ""
        """The one it has stopped before; empty when it is done."""
        self.twice = False
        """Run the next script twice, as if the first reply had been lost."""
        self.quiet_at: dict[str, int] | None = None
        """How many entries each response had at its look around, if all of them were handled by then."""
        self._stuck = stuck
        self._stopped, self._go_on = asyncio.Event(), asyncio.Event()

    async def begin(self, doing: Coroutine[Any, Any, None]) -> None:
        """Begin, and come back when it has stopped."""
        with _seeming_stuck(self._stuck):
            self._task = asyncio.create_task(self._do(doing))
            await self._stopped.wait()

    async def _do(self, doing: Coroutine[Any, Any, None]) -> None:
        _WORK.set(self)
        try:
            await doing
        finally:
            self.script = ""
            self._stopped.set()

    async def stop_before(self, script: str) -> None:
        """Stop here, in the worker, until it is let go on."""
        self.script = script
        self._go_on.clear()
        self._stopped.set()
        await self._go_on.wait()

    async def step(self) -> None:
        """Let it run one script, and come back when it has stopped again."""
        self._stopped.clear()
        self._go_on.set()
        with _seeming_stuck(self._stuck):
            await self._stopped.wait()
        if not self.script:
            await self._task

    async def crash(self) -> None:
        """End it where it is."""
        self._task.cancel()
        await asyncio.wait([self._task])


_WORK: ContextVar[_Work] = ContextVar("work")
_SCRIPTS = {
    sha1(scripts.source(name).encode(), usedforsecurity=False).hexdigest(): name
    for name in ("commit", "load", "settle", "survey")
}


class _Gate:
    """A worker's client: before each script it stops the work that runs it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    async def evalsha(self, digest: str, *args: Any) -> Any:
        """Run a script when it is time."""
        work = _WORK.get(None)
        if work is not None:
            await work.stop_before(_SCRIPTS[digest])
            if work.twice:
                await self._redis.evalsha(digest, *args)
        return await self._redis.evalsha(digest, *args)


class Machine(RuleBasedStateMachine):
    """One partition, three workers, and everything that can happen between two scripts of theirs."""

    url: str
    prefix: str
    numbers = itertools.count()

    batches = Bundle("batches")
    works = Bundle("works")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.published: dict[str, list[list[Event]]] = {name: [] for name in _RESPONSES}
        self.ids: dict[str, list[int]] = {name: [] for name in _RESPONSES}
        """The milliseconds of each entry's id."""
        self.silences: dict[str, set[int]] = {name: set() for name in _RESPONSES}
        """After how many of its entries a response was given up."""
        self.begun: list[_Work] = []
        self.unread = 0
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        self.redis = Redis.from_url(self.url)
        self.bench = Bench(
            self.redis,
            f"{self.prefix}:{next(self.numbers)}",
            idle_timeout=IDLE_MS / 1000,
            max_deliveries=100,
        )
        # Every worker takes over what any other holds: as if all of them had been stopped for long.
        self.bench.settings = self.bench.settings.model_copy(update={"claim_time": 0})
        self.now_ms = await self.bench.now_ms() - HOUR_MS
        self.workers = {name: self._worker(name) for name in ("one", "two", "three")}
        await self.workers["one"].group.ensure()

    def _worker(self, name: str) -> Consumer:
        settings = self.bench.settings.model_copy(update={"consumer": name})
        gate: Any = _Gate(self.redis)
        return Consumer(gate, settings, RoutingTable(_HANDLERS))

    def run(self, step: Awaitable[Any]) -> Any:
        """Do one thing to the end."""

        async def to_the_end() -> Any:
            return await step

        return self.runner.run(to_the_end())

    # -------------------------------------------------------------------------------------------- producers

    @initialize(groups=st.lists(_events(), min_size=2, max_size=6))
    def begin_with(self, groups: list[list[Event]]) -> None:
        """Something is there already."""
        for events in groups:
            self._publish(_RESPONSES[0], events)

    @rule(
        name=_NAMES,
        groups=st.lists(_events(), min_size=1, max_size=3),
        together=st.booleans(),
    )
    def publish(self, name: str, groups: list[list[Event]], together: bool) -> None:  # noqa: FBT001
        """A producer stores entries of one event or more."""
        if together:
            groups = [_with_one_end(itertools.chain(*groups))]
        for events in groups:
            self._publish(name, events)

    def _publish(self, name: str, events: list[Event]) -> None:
        self.unread += 1
        self.now_ms += APART_MS
        self.published[name].append(events)
        self.ids[name].append(self.now_ms)
        self.run(self.bench.publish_at(self.now_ms, json.dumps(events), response_id=name, model="m"))

    @rule(
        name=_NAMES,
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
        if created and not self.published[name]:  # a response is created once, at its beginning
            response = {"model": "other", "safety_identifier": "user"}
            events.insert(0, {"type": "response.created", "response": response})
        for event in events:
            self._publish(name, [event])

    @rule(name=_NAMES)
    def publish_again(self, name: str) -> None:
        """A producer stores its last entry twice."""
        if self.published[name]:
            self._publish(name, self.published[name][-1])

    # ---------------------------------------------------------------------------------------------- workers

    @precondition(lambda self: self.unread)
    @rule(target=batches, worker=_WORKERS, count=st.integers(1, 4))
    def read(self, worker: str, count: int) -> tuple[str, list[RawEntry]]:
        """A worker is given entries, and has not yet done anything with them."""
        return worker, self._read(worker, count)

    def _read(self, worker: str, count: int) -> list[RawEntry]:
        entries: list[RawEntry] = self.run(self.workers[worker].read(count))
        self.unread -= len(entries)
        return entries

    @rule(target=works, batch=consumes(batches), stuck=st.booleans())
    def begin(self, batch: tuple[str, list[RawEntry]], stuck: bool) -> _Work:  # noqa: FBT001
        """It begins with a batch; others may seem to be stuck with theirs."""
        worker, entries = batch
        return self._begin_work(self.workers[worker].take(entries), stuck=stuck)

    @rule(target=works, batch=batches, worker=_WORKERS, some=_SOME, stuck=st.booleans())
    def take_over(self, batch: tuple[str, list[RawEntry]], worker: str, some: slice, stuck: bool) -> _Work:  # noqa: FBT001
        """Another, or the same again, begins with some of a batch that is still in somebody's hands."""
        return self._begin_work(self.workers[worker].take(batch[1][some]), stuck=stuck)

    @rule(batch=batches, worker=_WORKERS, some=_SOME)
    def be_faster(self, batch: tuple[str, list[RawEntry]], worker: str, some: slice) -> None:
        """Another does all that is to be done with some of it."""
        self.run(self.workers[worker].take(batch[1][some]))

    @precondition(lambda self: self.unread)
    @rule(target=works, worker=_WORKERS, count=st.integers(1, 4), stuck=st.booleans())
    def read_and_begin(self, worker: str, count: int, stuck: bool) -> _Work:  # noqa: FBT001
        """A worker is given entries, and begins with them."""
        return self._begin_work(self.workers[worker].take(self._read(worker, count)), stuck=stuck)

    @precondition(lambda self: self.unread)
    @rule(worker=_WORKERS, count=st.integers(1, 4), stuck=st.booleans())
    def read_and_take(self, worker: str, count: int, stuck: bool) -> None:  # noqa: FBT001
        """A worker is given entries, and does all it does with them."""
        with _seeming_stuck(stuck):
            self.run(self.workers[worker].take(self._read(worker, count)))

    @rule(target=works, worker=_WORKERS, steps=st.integers(0, 5), stuck=st.booleans())
    def look(self, worker: str, steps: int, stuck: bool) -> _Work:  # noqa: FBT001
        """A worker looks around, and perhaps does not come to the end."""
        return self._look(worker, steps, stuck=stuck)

    def _look(self, worker: str, steps: int, *, stuck: bool) -> _Work:
        work = self._begin_work(self.workers[worker].worker.sweep(), stuck=stuck)
        for _ in range(steps):
            self._step(work)
        return work

    @rule(target=works, worker=_WORKERS, steps=st.integers(0, 5))
    def catch_up_and_look(self, worker: str, steps: int) -> _Work:
        """A worker reads all that is left, and takes over what others hold; then it looks around."""
        self.run(self._catch_up(self.workers[worker]))
        self.unread = 0
        return self._look(worker, steps, stuck=False)

    @staticmethod
    async def _catch_up(consumer: Consumer) -> None:
        while entries := await consumer.read():
            await consumer.take(entries)
        await consumer.reclaimer.reclaim()

    def _begin_work(self, doing: Coroutine[Any, Any, None], *, stuck: bool) -> _Work:
        work = _Work(stuck=stuck)
        self.run(work.begin(doing))
        self.begun.append(work)
        return work

    @rule(work=works, steps=st.integers(1, 2), twice=st.booleans())
    def go_on(self, work: _Work, steps: int, twice: bool) -> None:  # noqa: FBT001
        """Somebody goes on, script by script; perhaps a reply is lost, and the script runs again."""
        for _ in range(steps):
            self._step(work, twice=twice)

    @rule(work=consumes(works))
    def finish(self, work: _Work) -> None:
        """Somebody goes on to the end."""
        while work.script:
            self._step(work)

    def _step(self, work: _Work, *, twice: bool = False) -> None:
        if not work.script:
            return
        if work.script == "survey":
            work.quiet_at = None if self._unhandled() else {name: len(ids) for name, ids in self.ids.items()}
        if work.script == "settle" and work.quiet_at is not None:
            self._note_given_up(work.quiet_at)
        work.twice = twice
        self.run(work.step())

    def _note_given_up(self, entries: dict[str, int]) -> None:
        """Note which responses are given up: those of which nothing was handled since the look around."""
        unhandled = self._unhandled()
        for name, count in entries.items():
            if unhandled.issuperset(self.ids[name][count:]):
                self.silences[name].add(count)

    def _unhandled(self) -> set[int]:
        """Return the milliseconds of the entries that are unread, or in somebody's hands."""
        unhandled: set[int] = self.run(self._ask_for_unhandled())
        return unhandled

    async def _ask_for_unhandled(self) -> set[int]:
        deltas = self.bench.names.deltas
        (group,) = await self.redis.xinfo_groups(deltas)
        pending: Any = await self.redis.xpending_range(deltas, GROUP, "-", "+", 1000)
        last_ms = EntryId.parse(group["last-delivered-id"].decode()).ms
        unread = {ms for ids in self.ids.values() for ms in ids if ms > last_ms}
        return unread | {EntryId.parse(each["message_id"].decode()).ms for each in pending}

    @rule(work=consumes(works), worker=_WORKERS, forgets=st.booleans())
    def crash(self, work: _Work, worker: str, forgets: bool) -> None:  # noqa: FBT001
        """Somebody dies in the middle, and a worker begins anew; perhaps the server forgets the scripts."""
        self.run(work.crash())
        self.workers[worker] = self._worker(worker)
        if forgets:
            self.run(self.redis.script_flush())

    @rule(worker=_WORKERS)
    def reclaim(self, worker: str) -> None:
        """A worker takes over whatever anybody holds."""
        self.run(self.workers[worker].reclaimer.reclaim())

    # ---------------------------------------------------------------------------------------------- the end

    def teardown(self) -> None:
        """Everything is read, taken over and settled; then the outputs are what the stream asks for."""
        try:
            self.run(self._drain())
            self.run(self._compare())
        finally:
            self.run(self._end())
            self.runner.close()

    async def _drain(self) -> None:
        for work in self.begun:
            await work.crash()
        last = self._worker("last")
        await self._catch_up(last)
        await last.worker.sweep()

    async def _compare(self) -> None:
        prefix = self.bench.prefix
        expected = {name: expected_of(self._entries(name), name, {"model": "m"}) for name in _RESPONSES}
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
        stops = Counter(stop.type for response in expected.values() for stop in response.stops)
        assert raised == stops + Counter(
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

    def _entries(self, name: str) -> list[list[Event | Bad] | Silence]:
        """Return a response's entries, and where among them it was given up."""
        entries: list[list[Event | Bad] | Silence] = []
        for number, events in enumerate(self.published[name]):
            if number in self.silences[name]:
                entries.append(Silence())
            entries.append([*events])
        return entries

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
            max_examples=3000 if THOROUGH else 2 * settings().max_examples,
            stateful_step_count=50 if THOROUGH else 30,
            deadline=None,
            derandomize=not THOROUGH,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
