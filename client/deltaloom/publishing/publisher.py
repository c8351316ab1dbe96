"""Publish events of responses to Redis from any thread, without ever delaying or breaking the caller.

Callers append to a deque of their response and return. A daemon thread with a client of its own merges the
events of each response, freezes them to stream entries and sends these. Memory is bounded by a budget. Events
that do not fit are dropped, the least valuable first; each is counted, and reported on the stream.

No caller ever waits for a lock: a caller that does not get it at once leaves its events in the deque, and the
holder of the lock takes them. So a fork, a signal or a stopped thread cannot block a caller.

An offer creates no object that Python's garbage collector tracks. Otherwise the longest calls would be those
in which the collector runs.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from deltaloom import limits
from deltaloom.address import Address
from deltaloom.publishing.admission import Admission, ResponseQueue
from deltaloom.publishing.books import Books
from deltaloom.publishing.freezing import (
    FrozenEntry,
    TakenEvents,
    encoded,
    freeze_all,
    loss_event,
    process_loss_event,
)
from deltaloom.publishing.pace import Pace
from deltaloom.publishing.response_context import context_of, text_of
from deltaloom.publishing.sending import Sender, client_of
from deltaloom.publishing.values import PLAIN, REFUSAL_DELTA, URGENT, bytes_of
from deltaloom.streams import Partitions

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltaloom.publishing.books import LossReason, LossReport, PublisherCounters
    from deltaloom.publishing.sending import SendOutcome
    from deltaloom.publishing.values import Event

BATCH_ENTRIES: Final = 1_000
"""Maximum entries of a batch."""

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Estimated bytes of waiting events from which on a batch takes no more."""

SMALL_DELTA: Final = 64
"""Maximum characters of a delta that its caller only appends to the deque."""

HELPED: Final = 4
"""Maximum offers of others that a call moves to the queues. So only one call in this many has to move any."""

_MIN_BUDGET: Final = 64 * 1024
"""Minimum budget in bytes."""

_SMALL_BYTES: Final = 1024
"""Maximum bytes of an offer in a deque: of one small delta, with its share of larger offers before it."""

_ORDINARY_BYTES: Final = 8192
"""Estimated bytes of an offer above which its caller moves all offers that wait."""

_CLOSING_RETRY: Final = 0.05
"""Maximum seconds until the next attempt after a failure, while the publisher closes."""

_MOVE_EVERY: Final = 0.1
"""Maximum seconds until the thread moves offers, while it waits for the next attempt."""

_IDLE: Final = 30.0
"""Maximum seconds for which the thread sleeps."""

_HELD: Final = 256
"""Maximum offers that the thread moves before it releases the lock."""

_LOOK_EVERY: Final = 0.05
"""Seconds after which the thread looks again for offers, if there are many."""

_OVERFLOW: Final = 4
"""Multiple of the limit of offers beyond which deltas of answers and reasoning are dropped at once. It is
reached only if the lock is held for long, for example by a thread that the system has suspended."""


_DROPPED: Final = object()
"""Offer in place of an event that was dropped at once."""


class OfferedContext(dict[str, str]):
    """An offer of context fields."""


class ResponseStream:
    """The events of one response, on their way to Redis. `Publisher.stream` makes it."""

    __slots__ = ("_publisher", "_queue")

    def __init__(self, publisher: Publisher, queue: ResponseQueue) -> None:
        self._publisher = publisher
        self._queue = queue

    @property
    def response_id(self) -> str:
        """The id of the response."""
        return self._queue.response_id

    def offer(self, events: Sequence[Event]) -> None:
        """Publish events, in order. Never blocks, never raises an error, never logs.

        Args:
            events: events of the Responses API, as translators return them. The caller must not change them
                afterwards.
        """
        publisher = self._publisher
        try:
            if not events:
                return
        except Exception:  # noqa: BLE001 - no sequence, such as an array of numpy
            events = (None,)  # type: ignore[assignment] # counted as invalid
        try:
            queue = self._queue
            waiting = next(publisher.tickets) - publisher.moved
            if waiting >= publisher.inbox_limit:
                publisher.offer_more(queue, events, waiting)
                return
            queue.fresh.append(events)
            if not queue.is_listed:
                queue.is_listed = True
                publisher.inbox.append(queue)
            if len(events) == 1:
                event = events[0]
                kind = event["type"]
                is_plain = kind in PLAIN or (kind == REFUSAL_DELTA and queue.opened)
                if is_plain and len(event["delta"]) <= SMALL_DELTA:
                    if publisher.is_asleep:
                        publisher.wake()
                    return
            publisher.help(queue, events, waiting)
        except Exception:  # noqa: BLE001 - odd events are counted by the thread
            publisher.wake()

    def add_context(self, **context: str | None) -> None:
        """Add context fields that became known later. The first value of a field counts."""
        with contextlib.suppress(Exception):
            self._publisher.put(self._queue, OfferedContext(context_of(context)))

    def end(self) -> None:
        """Say that nothing more comes. Later events are dropped. A further call has no effect."""
        with contextlib.suppress(Exception):
            waiting = self._publisher.put(self._queue, None)
            self._publisher.help(self._queue, (), waiting)


class Publisher:
    """A bounded buffer before Redis, and the thread that empties it.

    Create one for a process, at any time: before a fork too. The thread starts with the first event.

    Args:
        url: address of the server, as in the workers' `REDIS_URL`: a single server, a cluster, or sentinels.
        prefix: first part of the streams' names.
        partitions: number of partitions; the workers must have the same.
        budget: maximum bytes of memory for events that wait, as estimated; at least 65,536.
        on_loss: function that the thread calls with each new `LossReport`, at most once a second.
        share: share of the budget that one response may take.
        linger: seconds for which deltas wait for others.
        timeout: seconds for a connection, and for each read and write.
        exit_timeout: seconds that the end of the process waits for events to be sent.
        max_event_bytes: maximum bytes of an event, as estimated; the workers' `DELTALOOM_MAX_EVENT_BYTES`.
        make_client: function that returns a client of redis-py, in place of `url`. It is called in the
            thread. The client must not retry.

    Raises:
        ValueError: an argument is out of range, or the URL is not one.
    """

    def __init__(  # noqa: PLR0913 - settings by name
        self,
        url: str = "redis://localhost:6379",
        *,
        prefix: str = "deltaloom",
        partitions: int = 0,
        budget: int = 16 * 1024 * 1024,
        on_loss: Callable[[LossReport], object] | None = None,
        share: float = 0.25,
        linger: float = 0.02,
        timeout: float = 2.0,
        exit_timeout: float = 2.0,
        max_event_bytes: int = 1024 * 1024,
        make_client: Callable[[], Any] | None = None,
    ) -> None:
        if budget < _MIN_BUDGET:
            raise ValueError(f"budget={budget}: a publisher needs at least {_MIN_BUDGET} bytes")
        if not 0 < share <= 1:
            raise ValueError(f"share={share}: use a number above 0, up to 1")
        for name, seconds in (("linger", linger), ("timeout", timeout), ("exit_timeout", exit_timeout)):
            if not 0 <= seconds <= threading.TIMEOUT_MAX:
                raise ValueError(f"{name}={seconds}: use a number of seconds, at least 0")
        if make_client is None:
            try:
                address = Address.parse(url)
            except ValueError as error:
                raise ValueError(f"the URL of Redis: use {error}") from None
            make_client = partial(client_of, address, timeout)
        self._names = Partitions(partitions, prefix)
        self._make_client = make_client
        self._on_loss = on_loss
        self._linger = linger
        self._exit_timeout = exit_timeout
        # The deques may hold a quarter of the budget; the rest is for the queues.
        self.inbox_limit = max(1, budget // 4 // _SMALL_BYTES)
        self._help_from = self.inbox_limit // 32
        """Number of waiting offers from which a caller moves some, unless it offers a small delta."""
        self._sizes = (budget - budget // 4, share, max_event_bytes)
        self._epoch = 0
        self.inbox: deque[ResponseQueue] = deque()
        """Responses with offers that were not moved yet."""
        self._queues: weakref.WeakSet[ResponseQueue] = weakref.WeakSet()
        self._inherited: list[object] = []
        """Objects of the parent process that must not be closed here."""
        self._begin()
        _publishers.add(self)

    def _begin(self) -> None:
        """Start with nothing, in a new process."""
        self._epoch += 1
        for queue in self._queues:
            queue.fresh.clear()
            queue.is_listed = False
        self.inbox.clear()
        self.tickets = itertools.count()
        """Numbers of offers. Taking one is a single step of the interpreter, which no thread interrupts."""
        self.moved = 0
        """Number of offers that were moved. The next ticket minus it is the number of those that wait."""
        self.is_asleep = True
        """True while the thread waits until something is offered, or there is none."""
        self._is_lingering = False
        self._is_busy = False
        """True if there were many offers when the thread looked last."""
        self._lock = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        """A lock that is always held, and released only to wake the thread."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._sender: Sender | None = None
        self._books = Books()
        budget, share, event_bytes = self._sizes
        self._admission = Admission(self._books, budget, share, event_bytes, _first_number)
        self._frozen: list[FrozenEntry] = []
        """The batch that was sent and is not confirmed."""
        self._is_closing = False
        self._is_closed = False
        self._taken: list[TakenEvents] = []
        """Events that have left a queue and are not frozen yet."""
        self._next_call = 0.0
        self._last_counters = self._books.snapshot(0)

    # ---- for callers

    def stream(  # noqa: PLR0913 - context by name
        self,
        response_id: str | None = None,
        *,
        tenant: str | None = None,
        reference: str | None = None,
        safety_identifier: str | None = None,
        traceparent: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        upstream_provider: str | None = None,
        dialect: str | None = None,
        upstream_response_id: str | None = None,
    ) -> ResponseStream:
        """Return the stream of one response. Never raises an error.

        Args:
            response_id: id of the response, unique to it; None to make one. An id of more than 1,024
                characters is cut.
            tenant: customer or team that the request belongs to.
            reference: link or id of the request.
            safety_identifier: user who sent the request.
            traceparent: W3C trace context.
            provider: name of the provider, as in OpenTelemetry's `gen_ai.provider.name`.
            model: name of the model.
            upstream_provider: provider that answered, if `provider` is a gateway.
            dialect: wire format of the answer.
            upstream_response_id: the provider's own id of the response.
        """
        name = text_of(response_id)[: limits.ID] or f"resp_{uuid.uuid4().hex}"
        context = context_of(
            {
                "tenant": tenant,
                "reference": reference,
                "safety_identifier": safety_identifier,
                "traceparent": traceparent,
                "provider": provider,
                "model": model,
                "upstream_provider": upstream_provider,
                "dialect": dialect,
                "upstream_response_id": upstream_response_id,
            }
        )
        queue = ResponseQueue(name, self._names.of(name).deltas, context)
        queue.epoch = self._epoch
        self._queues.add(queue)
        return ResponseStream(self, queue)

    @property
    def counters(self) -> PublisherCounters:
        """The counts of this process."""
        if self._lock.acquire(timeout=0.1):
            try:
                self._move_listed()
                self._last_counters = self._snapshot()
            finally:
                self._lock.release()
        return self._last_counters

    def close(self, timeout: float | None = None) -> PublisherCounters:
        """Send what waits, for at most `timeout` seconds; drop the rest, and return the counts.

        It may be called from a signal handler. Later events are dropped. A further call only returns the
        counts.

        Args:
            timeout: seconds; None for `exit_timeout`.
        """
        seconds = self._exit_timeout if timeout is None else min(timeout, threading.TIMEOUT_MAX / 2)
        deadline = time.monotonic() + seconds
        self._is_closing = True
        thread = self._thread
        if thread is None and self.inbox:
            self._start()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self.wake()
            with contextlib.suppress(RuntimeError):
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._lock.acquire(timeout=max(0.1, deadline - time.monotonic())):
            try:
                self._move_listed()
                self._give_up()
                self._last_counters = self._snapshot()
            finally:
                self._lock.release()
        self._call_on_loss(at_once=True)
        return self._last_counters

    def wake(self) -> None:
        """Wake the thread; start it if there is none."""
        if self._thread is None:
            self._start()
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._bell.release()

    def put(self, queue: ResponseQueue, offer: Any) -> int:
        """Append an offer to a response's deque; return the number of offers that wait."""
        waiting = next(self.tickets) - self.moved
        self._append(queue, offer)
        return waiting

    def _append(self, queue: ResponseQueue, offer: Any) -> None:
        """Append an offer to a response's deque, and list the response."""
        queue.fresh.append(offer)
        if not queue.is_listed:
            queue.is_listed = True
            self.inbox.append(queue)

    def offer_more(self, queue: ResponseQueue, events: Sequence[Event], waiting: int) -> None:
        """Append an offer beyond the limit, and move others in its place."""
        is_plain = _is_plain(events)
        is_dropped = is_plain and waiting >= self.inbox_limit * _OVERFLOW
        self._append(queue, _DROPPED if is_dropped else events)
        if is_plain and len(events[0]["delta"]) <= SMALL_DELTA:
            self._move_if_free(HELPED)
            if self.is_asleep:
                self.wake()
        else:
            self.help(queue, events, waiting)

    def help(self, queue: ResponseQueue, events: Sequence[Event], waiting: int) -> None:
        """Move some offers to the queues, if no other thread does, and wake the thread if it is time."""
        is_urgent, size = _weigh(queue, events)
        count = waiting + 1 if size > _ORDINARY_BYTES else HELPED if waiting > self._help_from else 0
        if count:
            self._move_if_free(count)
        if self.is_asleep or (is_urgent and self._is_lingering):
            self._is_lingering = False
            self.wake()

    def _move_if_free(self, count: int) -> None:
        """Move some offers, unless another thread holds the lock."""
        if self._lock.acquire(blocking=False):
            try:
                self._move(count)
            finally:
                self._lock.release()

    # ---- under the lock

    def _move(self, count: int) -> None:
        """Move offers from the deques to the queues."""
        inbox = self.inbox
        while count > 0:
            try:
                queue = inbox.popleft()
            except IndexError:
                return
            queue.is_listed = False  # first: an offer that comes from here on lists it again
            try:
                count -= max(1, self._move_of(queue, count))
            finally:  # also if a signal handler of the caller raises an error here
                if queue.fresh and not queue.is_listed:
                    queue.is_listed = True
                    inbox.append(queue)

    def _move_listed(self) -> None:
        """Move all offers that wait now."""
        for _ in range(len(self.inbox)):
            self._move(max(1, len(self.inbox[0].fresh)))

    def _move_of(self, queue: ResponseQueue, most: int) -> int:
        """Move at most `most` offers of a response, and return their number."""
        if queue.epoch != self._epoch:
            queue.forget()
            queue.number = None
            queue.epoch = self._epoch
        fresh = queue.fresh
        count = min(len(fresh), most)
        events: list[Any] = []
        for _ in range(count):
            self.moved += 1
            offer = fresh.popleft()
            if type(offer) is list:
                events += offer
                continue
            if offer is not None and offer is not _DROPPED and type(offer) is not OfferedContext:
                events += _items(offer)
                continue
            self._admit(queue, events)
            events = []
            if offer is None:
                queue.is_over = True
                queue.forget_tails()
                if queue.waiting:
                    self._admission.urgent[queue] = None
            elif type(offer) is OfferedContext:
                queue.context = dict(offer) | queue.context
            else:
                self._books.seen += 1
                self._books.drop("over_budget", queue.response_id)
        self._admit(queue, events)
        return count

    def _admit(self, queue: ResponseQueue, events: Sequence[Any]) -> None:
        """Admit events, and count each of them, even if a signal handler raises an error meanwhile."""
        if self._is_closed and events:
            self._books.seen += len(events)
            self._books.drop("closed", queue.response_id, len(events))
            return
        books, left, interruption = self._books, events, None
        while left:
            before = books.seen
            try:
                self._admission.admit_all(queue, left)
                break
            except BaseException as error:  # noqa: BLE001 - it is raised below, once each event is counted
                interruption = error
                if books.seen == before:
                    books.seen += 1
                    books.drop("invalid", queue.response_id)
                left = left[books.seen - before :]
        if interruption is not None:
            raise interruption

    def _snapshot(self) -> PublisherCounters:
        return self._books.snapshot(self._admission.delta_bytes + self._admission.frame_bytes)

    def _give_up(self) -> None:
        """Drop everything, once."""
        if self._is_closed:
            return
        self._is_closed = True
        admission = self._admission
        for entry in self._frozen:
            self._drop_entry(entry, "unconfirmed" if entry.may_have_arrived else "closed")
        self._frozen = []
        for queue, waiting, _, _ in self._taken:
            queue.waiting = waiting + queue.waiting
            admission.with_events[queue] = None
        for queue in admission.with_events:
            admission.drop_waiting(queue, "closed")
        admission.with_events.clear()
        admission.urgent.clear()

    def _drop_entry(self, entry: FrozenEntry, reason: LossReason) -> None:
        count = entry.published + entry.merged
        if count:
            self._books.drop(reason, entry.response_id, count)
        if entry.lost:
            self._books.lose(entry.response_id, entry.lost)
        self._release_entry(entry)

    def _release_entry(self, entry: FrozenEntry) -> None:
        if entry.queue is not None:
            self._admission.release(entry.queue, entry.delta_bytes, entry.frame_bytes)

    # ---- in the thread

    def _start(self) -> None:
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is not None or self._is_closed:
                return
            thread = threading.Thread(
                target=self._run, args=(self._epoch,), name="deltaloom-publisher", daemon=True
            )
            thread.start()
            self._thread = thread
            _close_at_exit_of_child(self)
        except RuntimeError:
            # There are too many threads, the interpreter ends, or a subinterpreter allows no daemon.
            self._books.fail("ThreadNotStarted")  # the next offer tries again
        finally:
            self._starting.release()

    def _run(self, epoch: int) -> None:
        self.is_asleep = False
        sender = self._sender = Sender(self._make_client)
        pace = Pace(self._linger)
        before = time.thread_time()
        while self._epoch == epoch and not self._is_closed:
            error = None
            try:
                self._collect()
                is_whole = self._is_closing or pace.is_due()
                if pace.may_send() and self._has_work(is_whole=is_whole):
                    error = self._rounds(sender, is_whole=is_whole)
                    worked = 0.0 if self._is_behind() else time.thread_time() - before
                    pace.note(error, worked, is_whole=is_whole)
                elif is_whole:
                    pace.skip()
                if is_whole:
                    before = time.thread_time()
                self._call_on_loss()
            except BaseException as bug:  # noqa: BLE001 - the thread must go on, even if `on_loss` calls sys.exit
                error = type(bug).__name__
                pace.note(error, 0.0, is_whole=True)
            if error is not None:
                self._count_failure(error)
            elif self._is_closing and self._is_empty():
                break
            self._rest(pace)
        sender.close()

    def _rest(self, pace: Pace) -> None:
        """Wait until there is something to do."""
        bell = self._bell
        if not pace.may_send():
            bell.acquire(timeout=min(pace.until_retry(), _CLOSING_RETRY if self._is_closing else _MOVE_EVERY))
        elif self._frozen or self._is_closing:
            return
        elif self._has_work(is_whole=True) or pace.is_warm():
            # While events keep coming, the thread looks for them by itself: waking it costs the caller time.
            self._is_lingering = True
            if not self._admission.urgent:
                bell.acquire(timeout=min(pace.until_due(), _LOOK_EVERY if self._is_busy else _IDLE))
            self._is_lingering = False
        else:
            self.is_asleep = True
            if not self.inbox and not self._is_closing:
                bell.acquire(timeout=_IDLE)
            self.is_asleep = False
            pace.restart()

    def _collect(self) -> None:
        """Move the offers that wait to the queues.

        Those that come meanwhile wait for the next round. Otherwise a caller that offers as fast as this
        thread moves them would keep it from sending anything.
        """
        with self._lock:
            waiting = next(self.tickets) - self.moved
            self.moved += 1  # the ticket that was taken to count
        self._is_busy = waiting > self.inbox_limit // 8
        for _ in range(0, waiting, _HELD):
            with self._lock:
                self._move(_HELD)
        if self._admission.delta_bytes:
            with self._lock:
                self._admission.make_room()

    def _is_behind(self) -> bool:
        """Return True if memory is short."""
        return self._admission.delta_bytes > self._admission.delta_reserve // 4

    def _is_empty(self) -> bool:
        return not (self.inbox or self._has_work(is_whole=True))

    def _has_work(self, *, is_whole: bool) -> bool:
        if self._frozen or self._admission.urgent:
            return True
        return is_whole and bool(self._admission.with_events or self._books.lost or self._books.unnamed)

    def _rounds(self, sender: Sender, *, is_whole: bool) -> str | None:
        """Send the responses that wait now; return the name of the error's class, or None."""
        waiting = len(self._admission.with_events if is_whole else self._admission.urgent)
        for _ in range(1 + waiting // BATCH_ENTRIES):
            error = self._round(sender, is_whole=is_whole)
            if error is not None or self._is_closed:
                return error
        return None

    def _round(self, sender: Sender, *, is_whole: bool) -> str | None:
        """Send one batch; return the name of the error's class, or None."""
        if not self._frozen:
            with self._lock:
                self._taken = self._take(is_whole=is_whole)
            entries, bad = freeze_all(self._taken)
            with self._lock:
                if self._is_closed:
                    return None
                self._taken = []
                for queue, count in bad:
                    self._books.drop("not_json", queue.response_id, count)
                if is_whole:
                    entries += self._loss_entries()
                self._frozen = entries
        if not self._frozen:
            return None
        outcome = sender.send(self._frozen)
        with self._lock:
            if not self._is_closed:
                self._book(outcome)
        return outcome.error

    def _take(self, *, is_whole: bool) -> list[TakenEvents]:
        """Take the events of the next batch out of the queues."""
        admission, books = self._admission, self._books
        taken: list[TakenEvents] = []
        size = 0
        for queues in (admission.urgent, admission.with_events) if is_whole else (admission.urgent,):
            while queues and len(taken) < BATCH_ENTRIES and size < BATCH_BYTES:
                queue = next(iter(queues))
                admission.urgent.pop(queue, None)
                admission.with_events.pop(queue, None)
                waiting = queue.take()
                if not waiting:
                    continue
                context, queue.context = queue.context, {}
                lost = books.lost.pop(queue.response_id, 0)
                taken.append(TakenEvents(queue, waiting, lost, context))
                size += sum(each.bytes for each in waiting)
        return taken

    def _loss_entries(self) -> list[FrozenEntry]:
        """Return entries that report losses of responses without further events."""
        books = self._books
        entries = []
        for response_id in list(books.lost)[:BATCH_ENTRIES]:
            lost = books.lost.pop(response_id)
            entry = FrozenEntry(self._names.of(response_id).deltas, response_id, None)
            entry.lost = lost
            entry.event = encoded(loss_event(response_id, lost))
            entries.append(entry)
        if books.unnamed:
            entry = FrozenEntry(self._names.all[0].deltas, "", None)
            entry.lost, books.unnamed = books.unnamed, 0
            entry.event = encoded(process_loss_event(entry.lost))
            entries.append(entry)
        return entries

    def _book(self, outcome: SendOutcome) -> None:
        """Record the outcome of an attempt."""
        books = self._books
        for entry in outcome.confirmed:
            books.published += entry.published
            books.merged += entry.merged
            books.entries += 1
            books.reports += bool(entry.lost)
            self._release_entry(entry)
        for entry in outcome.refused:
            if entry.queue is not None:
                entry.queue.context = entry.context | entry.queue.context
            self._drop_entry(entry, "unconfirmed" if entry.may_have_arrived else "refused")
        self._frozen = outcome.left

    def _count_failure(self, error: str) -> None:
        with self._lock:
            self._books.fail(error)

    def _call_on_loss(self, *, at_once: bool = False) -> None:
        """Call the owner's function with new losses, at most once a second."""
        now = time.monotonic()
        if self._on_loss is None or (now < self._next_call and not at_once):
            return
        if self._lock.acquire(timeout=0.1):
            try:
                report = self._books.new_losses()
            finally:
                self._lock.release()
            if report is not None:
                self._next_call = now + 1.0
                with contextlib.suppress(Exception):
                    self._on_loss(report)

    def begin_in_child(self) -> None:
        """Start with nothing after a fork. The parent's connection stays open and unused."""
        self._inherited.append(self._sender)
        self._begin()


def _items(offer: Any) -> list[Any]:
    """Return the events of an offer that is no list; None in place of an offer that is no sequence.

    A generator is no sequence: to iterate over it would run code of the caller in this thread.
    """
    with contextlib.suppress(Exception):  # the class of an offer may raise anything
        if isinstance(offer, Sequence) and not isinstance(offer, str | bytes | bytearray | memoryview):
            return [offer[index] for index in range(len(offer))]
    return [None]


def _is_plain(events: Sequence[Event]) -> bool:
    """Return True for a single delta of an answer or of reasoning. No offer raises an error."""
    with contextlib.suppress(Exception):
        return len(events) == 1 and events[0].get("type") in PLAIN
    return False


def _weigh(queue: ResponseQueue, events: Sequence[Event]) -> tuple[bool, int]:
    """Return whether events do not wait for others, and their estimated bytes."""
    is_urgent, size = False, 0
    for event in events:
        kind = event.get("type")
        delta = event.get("delta")
        is_urgent |= kind in URGENT or (kind == REFUSAL_DELTA and not queue.opened)
        size += len(delta) if isinstance(delta, str) else bytes_of(event)
    return is_urgent, size


def _first_number() -> int:
    """Return a number above those of earlier processes, so that numbers never repeat. It fits in 53 bits."""
    return time.time_ns() // 1000


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _begin_in_child() -> None:
    for publisher in list(_publishers):
        publisher.begin_in_child()


def _close_all() -> None:
    for publisher in list(_publishers):
        publisher.close()


def _close_at_exit_of_child(publisher: Publisher) -> None:
    """Close at the end of a process of multiprocessing, which runs no function of atexit."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, publisher.close, exitpriority=0)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
