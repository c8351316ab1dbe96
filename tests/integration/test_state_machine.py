"""State machine test of the workers, script by script: hypothesis chooses events, readers, order and crashes.

A worker stops before each script that it runs, and others may run meanwhile. So two workers can plan their
commits before either commits; a worker can load what it may finish, and write it later; a sweep of another
can run in between. For all choices, after everything is read and settled, the outputs must equal those that
the stream alone determines.

The ids of the entries are an hour old, and a good second apart. So a sweep while all entries are handled
finds each open response silent, and abandons it. A sweep while an entry is unread or pending must not abandon
any.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
from collections import Counter
from contextvars import ContextVar
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from chaos.model import Bad, Early, Event, Expectation, ExpectedText, Silence, expected_of
from deltaloom import GROUP
from handlers import BUILT_IN
from handlers.core.identity import EntryId
from handlers.core.routing import RoutingTable
from service.pipeline import batch_builder
from service.storage import commit_plan, scripts
from tests.bench import Bench, Consumer
from tests.workers import alerts, counts, dead_letters, texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Container, Coroutine, Iterable

    from deltaloom import AssembledText
    from service.ports.storage import RawEntry

THOROUGH = bool(os.environ.get("DELTALOOM_THOROUGH"))
"""Run for minutes, with other examples in each run.

By default the examples are almost the same in each run. They vary a little between processes: hypothesis also
draws constants of the loaded modules, which depend on the tests that ran before.
"""

HOUR_MS = 3_600_000
IDLE_MS = 600_000
APART_MS = 1100
"""Milliseconds between two entries, longer than the second by which last activity is rounded up."""

_HANDLERS = [handler for name, handler in BUILT_IN.items() if name != "output_text"]
_RESPONSES = ("resp_a", "resp_b")
_NAMES = st.sampled_from([_RESPONSES[0]] * 3 + [_RESPONSES[1]])
_WORKERS = st.sampled_from(["one", "two", "three"])
_STEPS = st.integers(0, 3)
"""Number of scripts that a worker runs before it stops, of at most three: the read of the context of opening
alerts, the batch's commit, and the load."""
_SOME = st.sampled_from([slice(None), slice(1), slice(2), slice(1, None)])
"""Slices that choose entries of a batch."""


def _part(event_type: str, output_index: int, number: int | None, **fields: Any) -> Event:
    event = {"type": event_type, "item_id": f"item_{output_index}", "output_index": output_index, **fields}
    event.setdefault("summary_index" if "summary" in event_type else "content_index", 0)
    return event if number is None else {**event, "sequence_number": number}


@st.composite
def _final_outputs(draw: st.DrawFn) -> list[Event]:
    """Draw a response's final output: items at their positions, with or without their ids and texts."""
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
    """Draw the events of an entry about one of three parts; its closing events have the same text."""
    family, output_index, field, copy_type = draw(
        st.sampled_from(
            [
                ("response.refusal", 0, "refusal", "refusal"),
                ("response.reasoning_text", 1, "text", "reasoning_text"),
                ("response.reasoning_summary_text", 1, "text", "summary_text"),
            ]
        )
    )
    place = "summary_index" if "summary" in family else "content_index"
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
    listed = "summary" if "summary" in family else "content"
    shifted = {**item, listed: [{"type": "other"}, copy]}

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
        lambda: [_part(f"{family}.done", output_index, draw(number), **{field: whole, place: 1})],
        lambda: [{"type": "response.output_item.done", "output_index": output_index, "item": item}],
        lambda: [{"type": "response.output_item.done", "output_index": output_index, "item": bare}],
        lambda: [{"type": "response.output_item.done", "output_index": output_index, "item": shifted}],
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
    """Return the events with only the first end of the response, since a second one would contradict it."""
    ends = ("response.completed", "response.incomplete", "response.failed")
    kept: list[Event] = []
    for event in events:
        if event["type"] not in ends or not any(other["type"] in ends for other in kept):
            kept.append(event)
    return kept


_CREATED: Event = {
    "type": "response.created",
    "response": {"model": "other", "safety_identifier": "user"},
}


class _Work:
    """The progress of a worker that stops before each script until it is resumed."""

    def __init__(self, *, stuck: bool) -> None:
        self.script = ""
        """Name of the script before which it has stopped; empty when the work is done."""
        self.twice = False
        """Run the next script twice, as if the first reply had been lost."""
        self.quiet_at: dict[str, tuple[int, int | None]] | None = None
        """State of each response at the last sweep, or None unless all entries were handled."""
        self.missing: list[set[int]] = []
        """Ids (in milliseconds) of the entries that were unhandled at each load, if others seem stuck."""
        self.stuck = stuck
        self._stopped, self._go_on = asyncio.Event(), asyncio.Event()

    async def begin(self, doing: Coroutine[Any, Any, None]) -> None:
        """Start the work, and return when it has stopped."""
        with _seeming_stuck(self.stuck):
            self._task = asyncio.create_task(self._do(doing))
            await self._stopped.wait()
        if not self.script:
            await self._task

    async def _do(self, doing: Coroutine[Any, Any, None]) -> None:
        _WORK.set(self)
        try:
            await doing
        finally:
            self.script = ""
            self._stopped.set()

    async def stop_before(self, script: str) -> None:
        """Stop the calling worker before a script until it is resumed."""
        self.script = script
        self._go_on.clear()
        self._stopped.set()
        await self._go_on.wait()

    async def step(self) -> None:
        """Run one script, and return when the worker has stopped again."""
        self._stopped.clear()
        self._go_on.set()
        with _seeming_stuck(self.stuck):
            await self._stopped.wait()
        if not self.script:
            await self._task

    async def crash(self) -> None:
        """Cancel the work at its current position."""
        self._task.cancel()
        await asyncio.wait([self._task])


_WORK: ContextVar[_Work] = ContextVar("work")


@cache
def _name_of(digest: str) -> str:
    """Return the name of the script with this digest."""
    names = ("commit", "load", "opening", "settle", "survey")
    return next(name for name in names if sha1(scripts.source(name).encode()).hexdigest() == digest)  # noqa: S324 - the digest that Redis uses


class _Gate:
    """A worker's client that stops the worker before each script."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    async def evalsha(self, digest: str, *args: Any) -> Any:
        """Stop the worker, then run the script, twice if requested."""
        work = _WORK.get(None)
        if work is not None:
            await work.stop_before(_name_of(digest))
            if work.twice:
                await self._redis.evalsha(digest, *args)
        return await self._redis.evalsha(digest, *args)


class Machine(RuleBasedStateMachine):
    """A partition with three workers, and all that can happen between two of their scripts."""

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
        """Time in each entry's id, in milliseconds."""
        self.silences: dict[str, set[int]] = {name: set() for name in _RESPONSES}
        """Numbers of entries after which a response was abandoned."""
        self.early: dict[str, list[tuple[int, ExpectedText]]] = {name: [] for name in _RESPONSES}
        """Texts that came out without some of their entries, with the number of the first missing entry."""
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
        # Claim time 0: a worker takes over all pending entries, as if the others had stopped long ago.
        self.bench.settings = self.bench.settings.model_copy(update={"claim_time": 0})
        self.now_ms = await self.bench.now_ms() - HOUR_MS
        self.workers = {name: self._worker(name) for name in ("one", "two", "three")}
        await self.workers["one"].group.ensure()

    def _worker(self, name: str, **settings_of_its_own: Any) -> Consumer:
        settings = self.bench.settings.model_copy(update={"consumer": name, **settings_of_its_own})
        gate: Any = _Gate(self.redis)
        return Consumer(gate, settings, RoutingTable(_HANDLERS))

    def run(self, step: Awaitable[Any]) -> Any:
        """Run one step to its end. No worker seems stuck because this process is slow."""

        async def to_the_end() -> Any:
            return await step

        with _seeming_stuck(stuck=False):
            return self.runner.run(to_the_end())

    # -------------------------------------------------------------------------------------------- producers

    @initialize(created=st.booleans(), groups=st.lists(_events(), max_size=4))
    def begin_with(self, created: bool, groups: list[list[Event]]) -> None:  # noqa: FBT001
        """Publish some entries before the first step."""
        for events in [[_CREATED]] * created + groups:
            self._publish(_RESPONSES[0], events)

    @rule(
        name=_NAMES,
        groups=st.lists(_events(), min_size=1, max_size=3),
        together=st.booleans(),
    )
    def publish(self, name: str, groups: list[list[Event]], together: bool) -> None:  # noqa: FBT001
        """Publish entries with one or several events."""
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
        target=works,
        name=_NAMES,
        family=st.sampled_from(["response.refusal", "response.reasoning_text"]),
        created=st.booleans(),
        repeated=st.sampled_from([None, 0, 1, 2]),
        distance=st.integers(1, 2),
        meanwhile=st.lists(st.sampled_from(["", "process", "sweep", "stop", "stop in sweep"]), max_size=5),
        late=st.booleans(),
    )
    def publish_a_text(
        self,
        name: str,
        family: str,
        created: bool,  # noqa: FBT001
        repeated: int | None,
        distance: int,
        meanwhile: list[str],
        late: bool,  # noqa: FBT001
    ) -> MultipleResults[_Work]:
        """Publish a whole text, numbered or not, with one of its entries perhaps repeated.

        After each entry a worker may process what is there, sweep, or stop before it settles. If `late`, it
        continues after another worker has processed the rest.
        """
        worker = "two"
        numbers = [1, 2, 3] if name == _RESPONSES[0] else [None] * 3
        field = "refusal" if family == "response.refusal" else "text"
        events = [
            _part(f"{family}.delta", 0, numbers[0], delta="a"),
            _part(f"{family}.delta", 0, numbers[1], delta="b"),
            _part(f"{family}.done", 0, numbers[2], **{field: "ab"}),
        ]
        if repeated is not None:
            events.insert(repeated + distance, events[repeated])
        if created and not self.published[name]:  # only the first event of a response can create it
            events.insert(0, _CREATED)
        stopped: list[_Work] = []
        for event, doing in zip(events, itertools.chain(meanwhile, itertools.repeat("")), strict=False):
            self._publish(name, [event])
            if doing == "process":
                self.run(self.workers[worker].process(self._read(worker, 10)))
            elif doing == "stop":
                stopped.append(
                    self._begin_work(self.workers[worker].process_later(self._read(worker, 10)), 1)
                )
            elif doing == "sweep":
                self._begin_work(self.workers[worker].worker.sweep(), 5)
            elif doing == "stop in sweep":
                self.run(self.workers[worker].process(self._read(worker, 10)))
                stopped.append(self._begin_work(self.workers[worker].worker.sweep(), 2))
        if late:
            self.run(self.workers["one"].process(self._read("one", 10)))
            for work in stopped:
                self._finish(work)
        works: MultipleResults[_Work] = multiple(*stopped)
        return works

    @rule(name=_NAMES)
    def publish_again(self, name: str) -> None:
        """Publish the last entry of a response again."""
        if self.published[name]:
            self._publish(name, self.published[name][-1])

    # ---------------------------------------------------------------------------------------------- workers

    @precondition(lambda self: self.unread)
    @rule(target=batches, worker=_WORKERS, count=st.integers(1, 4))
    def read(self, worker: str, count: int) -> tuple[str, list[RawEntry]]:
        """Deliver entries to a worker, which does nothing with them yet."""
        return worker, self._read(worker, count)

    def _read(self, worker: str, count: int) -> list[RawEntry]:
        entries: list[RawEntry] = self.run(self.workers[worker].read(count))
        self.unread -= len(entries)
        return entries

    @rule(target=works, batch=consumes(batches), steps=_STEPS, stuck=st.booleans())
    def begin(self, batch: tuple[str, list[RawEntry]], steps: int, stuck: bool) -> _Work:  # noqa: FBT001
        """Start to process a batch; other workers may seem stuck with theirs."""
        worker, entries = batch
        return self._begin_work(self.workers[worker].process_later(entries), steps, stuck=stuck)

    @rule(target=works, batch=batches, worker=_WORKERS, some=_SOME, steps=_STEPS, stuck=st.booleans())
    def take_over(
        self,
        batch: tuple[str, list[RawEntry]],
        worker: str,
        some: slice,
        steps: int,
        stuck: bool,  # noqa: FBT001
    ) -> _Work:
        """Start to process some entries of a pending batch, by its own or another worker."""
        return self._begin_work(self.workers[worker].process_later(batch[1][some]), steps, stuck=stuck)

    @precondition(lambda self: self.unread)
    @rule(target=works, worker=_WORKERS, count=st.integers(1, 6), steps=_STEPS, stuck=st.booleans())
    def read_and_begin(self, worker: str, count: int, steps: int, stuck: bool) -> _Work:  # noqa: FBT001
        """Deliver entries to a worker, and start to process them."""
        return self._begin_work(
            self.workers[worker].process_later(self._read(worker, count)), steps, stuck=stuck
        )

    @precondition(lambda self: self.unread)
    @rule(
        worker=_WORKERS,
        count=st.integers(1, 6),
        faster=st.none() | _WORKERS,
        some=_SOME,
        stuck=st.booleans(),
    )
    def read_and_take(
        self,
        worker: str,
        count: int,
        faster: str | None,
        some: slice,
        stuck: bool,  # noqa: FBT001
    ) -> None:
        """Process entries completely; another worker may process some of them first."""
        entries = self._read(worker, count)
        if faster is not None:
            self._finish(self._begin_work(self.workers[faster].process_later(entries[some]), 0, stuck=stuck))
        self._finish(self._begin_work(self.workers[worker].process_later(entries), 0, stuck=stuck))

    @rule(target=works, worker=_WORKERS, steps=st.integers(0, 5), stuck=st.booleans())
    def sweep(self, worker: str, steps: int, stuck: bool) -> _Work:  # noqa: FBT001
        """Start a sweep, and run some of its scripts."""
        return self._begin_work(self.workers[worker].worker.sweep(), steps, stuck=stuck)

    @rule(target=works, worker=_WORKERS, steps=st.integers(0, 5))
    def catch_up_and_sweep(self, worker: str, steps: int) -> _Work:
        """Read all new entries, take over all pending ones, and start a sweep."""
        self.run(self._catch_up(self.workers[worker]))
        self.unread = 0
        return self._begin_work(self.workers[worker].worker.sweep(), steps)

    @staticmethod
    async def _catch_up(consumer: Consumer) -> None:
        while entries := await consumer.read():
            await consumer.process(entries)
        await consumer.reclaimer.reclaim()

    def _begin_work(self, doing: Coroutine[Any, Any, None], steps: int, *, stuck: bool = False) -> _Work:
        work = _Work(stuck=stuck)
        self.run(work.begin(doing))
        self.begun.append(work)
        for _ in range(steps):
            self._step(work)
        return work

    @rule(work=works, steps=st.integers(1, 2), twice=st.booleans())
    def go_on(self, work: _Work, steps: int, twice: bool) -> None:  # noqa: FBT001
        """Continue some work by a few scripts, each perhaps twice, as after a lost reply."""
        for _ in range(steps):
            self._step(work, twice=twice)

    @rule(work=consumes(works))
    def finish(self, work: _Work) -> None:
        """Continue some work to its end."""
        self._finish(work)

    def _finish(self, work: _Work) -> None:
        while work.script:
            self._step(work)

    def _step(self, work: _Work, *, twice: bool = False) -> None:
        if not work.script:
            return
        if work.script == "survey":
            work.quiet_at = self._quiet()
        settled = work.quiet_at if work.script == "settle" else None
        quiet = {} if settled is None else self._still_quiet(settled)
        work.twice = twice
        if work.stuck:
            self._step_past_stuck(work)
        else:
            self.run(work.step())
        self._note_given_up(quiet)

    def _step_past_stuck(self, work: _Work) -> None:
        """Run one script while others seem stuck, and record texts that come out without some entries."""
        script, before = work.script, len(self._texts())
        self.run(work.step())
        if script in {"commit", "survey"}:
            work.missing.clear()
        if script in {"commit", "load"}:
            work.missing.append(self._unhandled())
        for text in self._texts()[before:]:
            self._note_early(text, work.missing)

    def _texts(self) -> list[AssembledText]:
        found: list[AssembledText] = self.run(texts(self.redis, self.bench.prefix))
        return found

    def _note_early(self, text: AssembledText, missing: list[set[int]]) -> None:
        """Record a text that is certain although some entries of its response are unhandled.

        Any other text is compared with the expectation from all entries.
        """
        name = str(text.response_id)
        for ids in missing:
            numbers = [number for number, ms in enumerate(self.ids[name]) if ms in ids]
            if not numbers:
                continue
            without = expected_of(self._entries(name, without=numbers), name, {"model": "m"})
            same = [
                each
                for each in without.texts
                if (each.part.output_index, each.part.kind) == (text.output_index, text.kind)
                and each.certain
                and _expected_result(each) == _result(text)
            ]
            self.early[name] += [(numbers[0], each) for each in same[:1]]

    def _quiet(self) -> dict[str, tuple[int, int | None]] | None:
        """Return number of entries and `open` score of each response, or None if an entry is unhandled."""
        if self._unhandled():
            return None
        noted = self.run(self.bench.member_scores("open"))
        return {name: (len(ids), noted.get(f"response:{name}")) for name, ids in self.ids.items()}

    def _still_quiet(self, quiet: dict[str, tuple[int, int | None]]) -> dict[str, int]:
        """Return the responses that got only late events since, with their number of entries."""
        noted = self.run(self.bench.member_scores("open"))
        return {name: count for name, (count, at) in quiet.items() if noted.get(f"response:{name}") == at}

    def _note_given_up(self, quiet: dict[str, int]) -> None:
        """Record the quiet responses that were abandoned: a worker leaves those to its other settlements."""
        open_ones = self.run(self.bench.member_scores("open")) if quiet else {}
        for name, count in quiet.items():
            if f"response:{name}" not in open_ones:
                self.silences[name].add(count)

    def _unhandled(self) -> set[int]:
        """Return the ids (in milliseconds) of the entries that are unread or pending."""
        unhandled: set[int] = self.run(self._load_unhandled())
        return unhandled

    async def _load_unhandled(self) -> set[int]:
        deltas = self.bench.names.deltas
        (group,) = await self.redis.xinfo_groups(deltas)
        pending: Any = await self.redis.xpending_range(deltas, GROUP, "-", "+", 1000)
        last_ms = EntryId.parse(group["last-delivered-id"].decode()).ms
        unread = {ms for ids in self.ids.values() for ms in ids if ms > last_ms}
        return unread | {EntryId.parse(each["message_id"].decode()).ms for each in pending}

    @rule(work=consumes(works), worker=_WORKERS, forgets=st.booleans())
    def crash(self, work: _Work, worker: str, forgets: bool) -> None:  # noqa: FBT001
        """Cancel some work, and start a worker again; perhaps flush the server's scripts."""
        self.run(work.crash())
        self.workers[worker] = self._worker(worker)
        if forgets:
            self.run(self.redis.script_flush())

    @rule(worker=_WORKERS)
    def reclaim(self, worker: str) -> None:
        """Take over all pending entries."""
        self.run(self.workers[worker].reclaimer.reclaim())

    # ---------------------------------------------------------------------------------------------- the end

    def teardown(self) -> None:
        """Read, take over and settle everything, then compare the outputs with those of the model."""
        try:
            self.run(self._drain())
            self.run(self._compare())
        finally:
            self.run(self._end())
            self.runner.close()

    async def _drain(self) -> None:
        for work in self.begun:
            await work.crash()
        patient = self._worker("last", idle_timeout=2 * HOUR_MS / 1000)
        await self._catch_up(patient)
        await patient.worker.sweep()
        await self._compare_closed()
        await self._worker("last").worker.sweep()

    async def _compare_closed(self) -> None:
        """Assert that all closed texts have come out before any text is abandoned."""
        got = {
            (text.response_id, text.output_index, text.kind)
            for text in await texts(self.redis, self.bench.prefix)
        }
        closed = {
            (name, text.part.output_index, text.part.kind)
            for name in _RESPONSES
            for text in self._expected(name).texts
            if text.closed_by is not None
        }
        assert closed <= got

    def _expected(self, name: str) -> Expectation:
        return expected_of(self._entries(name), name, {"model": "m"})

    async def _compare(self) -> None:
        prefix = self.bench.prefix
        expected = {name: self._expected(name) for name in _RESPONSES}
        wanted = [_expected_result(text) for response in expected.values() for text in response.texts]
        got = await texts(self.redis, prefix)
        assert sorted(map(_result, got), key=str) == sorted(wanted, key=str)
        refusals = sum(
            text.part.kind == "refusal" for response in expected.values() for text in response.texts
        )
        raised = Counter(alert.type for alert in await alerts(self.redis, prefix))
        too_many = raised["deltaloom.refusal.opened"] - refusals
        assert 0 <= too_many <= self._refusals_opened_by_copies(expected)
        raised["deltaloom.refusal.opened"] = refusals
        contradicted = sum(len(response.contradicted) for response in expected.values())
        stopped = Counter(stop.type for response in expected.values() for stop in response.stops)
        assert raised == stopped + Counter(
            {
                "deltaloom.refusal.opened": refusals,
                "deltaloom.refusal.finished": refusals,
                "deltaloom.text.contradicted": contradicted,
            }
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
        await self._assert_no_state_is_left()

    def _refusals_opened_by_copies(self, expected: dict[str, Expectation]) -> int:
        """Return the number of parts with deltas that may be processed before the copy which they follow."""
        deltas = {
            (name, event["output_index"], event["content_index"])
            for name in _RESPONSES
            for entry in self.published[name]
            for event in entry
            if event["type"] == "response.refusal.delta"
        }
        shown = {
            (name, text.part.output_index, text.part.content_index)
            for name in _RESPONSES
            for text in expected[name].texts
            if text.part.kind == "refusal"
        }
        return len(deltas - shown)

    def _entries(
        self, name: str, *, without: Container[int] = ()
    ) -> list[list[Event | Bad] | Silence | Early]:
        """Return a response's entries, with a mark where it was abandoned, or where a text came out early."""
        entries: list[list[Event | Bad] | Silence | Early] = []
        for number, events in enumerate(self.published[name]):
            if number in self.silences[name]:
                entries.append(Silence())
            entries += [Early(text) for first, text in self.early[name] if first == number]
            if number not in without:
                entries.append([*events])
        return entries

    async def _assert_no_state_is_left(self) -> None:
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


def _expected_result(text: ExpectedText) -> tuple[Any, ...]:
    return (
        text.part.response_id,
        text.part.kind,
        text.text,
        text.status,
        text.reason,
        text.integrity,
        text.context.get("safety_identifier"),
    )


class _seeming_stuck:  # noqa: N801 - named like a function, since it is used in `with` statements
    """Treat workers with pending entries as stuck at once (`stuck`), or never, within the block."""

    def __init__(self, stuck: bool) -> None:  # noqa: FBT001
        self._after_ms = -1 if stuck else 10**9

    def __enter__(self) -> None:
        self._before = commit_plan.STALLED_MS
        commit_plan.STALLED_MS = self._after_ms

    def __exit__(self, *_: object) -> None:
        commit_plan.STALLED_MS = self._before


@pytest.fixture
def slow_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make many entries slow by definition: they are processed last, and no other response waits for them."""
    monkeypatch.setattr(batch_builder, "LARGE_ENTRY_BYTES", 120)
    monkeypatch.setattr(batch_builder, "LARGE_BATCH_BYTES", 1)


@pytest.fixture
def quiet() -> None:
    """Turn logging off, since there would be thousands of lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.mark.timeout(3600 if THOROUGH else 900)
@pytest.mark.usefixtures("quiet", "slow_entries")
def test_any_interleaving_of_scripts_gives_the_outputs_of_the_stream(redis_url: str, prefix: str) -> None:
    """The outputs are those of the stream, for any interleaving of the workers' scripts."""
    machine = type("Machine", (Machine,), {"url": redis_url, "prefix": prefix})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=3000 if THOROUGH else 2 * settings().max_examples,
            stateful_step_count=50 if THOROUGH else 30,
            deadline=None,
            derandomize=not THOROUGH,  # almost; see THOROUGH
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
