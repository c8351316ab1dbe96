"""Admit offered events to the budget: keep, merge, reduce or drop them, by their value.

Nothing here does I/O or waits. The publisher's lock guards all of it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from itertools import islice
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

from deltaloom.publishing.values import (
    COPIES,
    DELTA_BYTES,
    DELTAS,
    FRAGMENT_BYTES,
    FRAMES,
    URGENT,
    Value,
    bytes_of,
    has_output,
    reduced,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from deltaloom.publishing.books import Books, LossReason
    from deltaloom.publishing.values import Event

LIMITS: Final[Mapping[Value, float]] = {Value.ANSWER: 0.8, Value.REASONING: 0.9, Value.REFUSAL: 1.0}
"""Share of the deltas' reserve up to which deltas of each value are kept."""

EVICT_FROM: Final = 0.85
"""Share of the deltas' reserve beyond which waiting deltas make room for more valuable ones. It is above the
limit of answers, so that these alone seldom reach it."""

REDUCE_FROM: Final = 0.75
"""Share of the closings' reserve from which closings are kept without their text."""

MERGED_BYTES: Final = 64 * 1024
"""Maximum bytes of memory of a merged delta."""

_PARTS: Final = 64
"""Maximum parts of a response whose deltas are merged."""

_RANGES: Final = 32
"""Maximum ranges of merged numbers that are remembered for a part."""

_OPENED: Final = 512
"""Maximum refusals of a response whose first delta is remembered."""


class WaitingEvent:
    """An event that was never sent."""

    __slots__ = ("bytes", "event", "fragments", "number", "part", "value")

    def __init__(
        self, event: Event, value: Value, number: int | None, size: int, part: PartNumbers | None = None
    ) -> None:
        self.event = event
        self.value = value
        self.number = number
        """The `sequence_number` that replaces that of the event; None to keep the event's own."""
        self.bytes = size
        self.part = part
        """The part of a delta into which later ones may be merged."""
        self.fragments: list[str] | None = None
        """The deltas that were merged; None for a single event."""

    @property
    def count(self) -> int:
        """The number of offered events in it."""
        return 1 if self.fragments is None else len(self.fragments)

    def content(self) -> Event:
        """Return the event to publish."""
        event = self.event
        if self.number is not None:
            event = {**event, "sequence_number": self.number}
        if self.fragments is not None:
            event = {name: value for name, value in event.items() if name not in _OF_ONE_DELTA}
            event["delta"] = "".join(self.fragments)
        return event


_SLIM: Final = frozenset(
    {
        *("type", "sequence_number", "output_index", "content_index", "summary_index", "item_id", "delta"),
        *("logprobs", "obfuscation"),
    }
)
"""Fields of a delta that take little memory, except for values of `logprobs`."""

_OF_ONE_DELTA = frozenset({"delta", "logprobs", "obfuscation"})


class PartNumbers:
    """The numbers of a part's deltas, and the waiting delta into which the next one may be merged."""

    __slots__ = ("head", "highest", "may_merge", "merged", "tail", "turn")

    def __init__(self) -> None:
        self.head: str | None = None
        """Beginning of the JSON of each merged delta of the part; None before the first one."""
        self.highest = -1
        self.may_merge = True
        """False once a number came twice or late."""
        self.merged: list[list[int]] = []
        """First and last number of the ranges in which deltas were merged."""
        self.tail: WaitingEvent | None = None
        self.turn = -1
        """The queue's turn in which `tail` was kept; it counts only in this turn."""

    def tail_in(self, turn: int) -> WaitingEvent | None:
        """Return the waiting delta into which the next one may be merged in this turn of the queue."""
        return self.tail if self.turn == turn and self.may_merge else None

    def note_merged(self, first: int, number: int) -> None:
        """Note that a delta was merged, in a run of numbers that began with `first`."""
        merged = self.merged
        if merged and merged[-1][0] == first:
            merged[-1][1] = number
            return
        merged.append([first, number])
        if len(merged) > _RANGES:
            merged[:2] = [[merged[0][0], merged[1][1]]]

    def may_be_merged(self, number: int) -> bool:
        """Return True if a delta with this number may be part of a merged one."""
        return any(first <= number <= last for first, last in self.merged)


def _with_exact_strings(event: Event) -> Event:
    """Return an event whose type and delta are plain strings, if they are of a subclass such as `StrEnum`."""
    exact = {
        name: str.__str__(value)
        for name in ("type", "delta")
        if isinstance(value := event.get(name), str) and type(value) is not str
    }
    return {**event, **exact} if exact else event


class ResponseQueue:
    """The waiting events of one response, and the state of the response."""

    __slots__ = (
        "__weakref__",
        "bytes",
        "context",
        "epoch",
        "frame_bytes",
        "fresh",
        "hot",
        "is_gone",
        "is_listed",
        "is_numbered",
        "is_over",
        "key",
        "last_number",
        "number",
        "opened",
        "parts",
        "response_id",
        "run_start",
        "turn",
        "waiting",
        "wire",
    )

    def __init__(self, response_id: str, key: str, context: dict[str, str]) -> None:
        self.response_id = response_id
        self.key = key
        """The name of the stream that gets the events."""
        self.context = context
        """Context fields that no entry has had yet."""
        self.wire: bytes | None = None
        """The command that adds an entry without context, up to the event; None before the first one."""
        self.fresh: deque[Any] = deque()
        """Offers that were not moved to `waiting` yet: events, context, or None for the end."""
        self.is_listed = False
        """True if the publisher knows that there are such offers."""
        self.epoch = 0
        """The generation of the process; a fork begins a new one."""
        self.is_over = False
        """True after the caller said that nothing more comes."""
        self.is_gone = False
        """True if the response no longer fits: all its events are dropped."""
        self.number: int | None = None
        """The next number, if the caller's events have none."""
        self.is_numbered = False
        """True if the caller numbers the events."""
        self.run_start = 0
        """The first of the consecutive numbers that end with `last_number`."""
        self.last_number = -1
        self.parts: dict[object, PartNumbers] = {}
        self.turn = 0
        """Number of times that merging began anew."""
        self.opened: set[object] = set()
        """Places of the refusals whose first delta was kept."""
        self.forget()

    def forget(self) -> None:
        """Forget what waits."""
        self.waiting: list[WaitingEvent] = []
        self.bytes = 0
        """Bytes of deltas, waiting or in flight."""
        self.frame_bytes = 0
        """Bytes of the other events, waiting or in flight."""
        self.forget_tails()

    def take(self) -> list[WaitingEvent]:
        """Return the waiting events, which nobody changes from now on."""
        taken, self.waiting = self.waiting, []
        self.forget_tails()
        return taken

    def forget_tails(self) -> None:
        """Stop merging later deltas into waiting ones."""
        self.turn += 1
        self.hot: tuple[PartNumbers, tuple[object, ...]] | None = None
        """The part of the last delta, and its place. The next delta is usually of the same part."""


class Admission:
    """Two reserves of memory, and the rules by which events get in.

    Args:
        books: counts what is dropped.
        budget: bytes of both reserves.
        share: share of each reserve that one response may take.
        event_bytes: maximum bytes of an event.
        first_number: function that returns the first number for events without one.
    """

    def __init__(
        self, books: Books, budget: int, share: float, event_bytes: int, first_number: Callable[[], int]
    ) -> None:
        self.books = books
        self.delta_reserve = budget * 3 // 4
        self.frame_reserve = budget - self.delta_reserve
        self.delta_share = int(self.delta_reserve * share)
        self.frame_share = int(self.frame_reserve * share)
        self._ample = int(self.delta_reserve * LIMITS[Value.ANSWER])
        self._ample_share = int(self.delta_share * LIMITS[Value.ANSWER])
        self.delta_bytes = 0
        self.frame_bytes = 0
        self.with_events: dict[ResponseQueue, None] = {}
        """Queues with events, in the order in which they got the first one."""
        self.urgent: dict[ResponseQueue, None] = {}
        """Queues with events that do not wait for others."""
        self._event_bytes = event_bytes
        self._first_number = first_number

    def admit_all(self, queue: ResponseQueue, events: Sequence[Any]) -> None:
        """Keep, merge, reduce or drop the events of a response, in order."""
        done, turned = 0, -1
        while done < len(events):
            if queue.hot is not None:
                done += self._merge_run(queue, events, done)
                if done == len(events):
                    return
            if turned != done and self._turns_to(queue, events[done]):
                turned = done
                continue
            try:
                self.admit(queue, events[done])
            except BaseException as error:
                self.books.drop("invalid", queue.response_id)
                if not isinstance(error, Exception):  # a signal handler has raised it
                    raise
                # Any other error comes from an odd value, such as one that cannot be compared.
            done += 1

    def _turns_to(self, queue: ResponseQueue, event: Any) -> bool:
        """Return True if an event is of another part with a waiting delta, which is then merged into."""
        if queue.number is not None or type(event) is not dict:
            return False
        get = event.get
        place = (
            *(get("type"), get("output_index"), get("content_index"), get("summary_index"), get("item_id")),
        )
        with contextlib.suppress(Exception):  # a value that has no hash, or whose class raises errors
            part = queue.parts.get(place)
            if part is not None and part.tail_in(queue.turn) is not None:
                queue.hot = (part, place)
                return True
        return False

    def _merge_run(self, queue: ResponseQueue, events: Sequence[Any], start: int) -> int:
        """Merge deltas that follow the last one, up to the first other event; return their number.

        It is a faster form of `admit` for most events.
        """
        assert queue.hot is not None  # noqa: S101 - the caller has checked it
        part, (kind, output_index, content_index, summary_index, item_id) = queue.hot
        tail, number = part.tail, queue.last_number
        if tail is None or number < part.highest:
            return 0
        room = min(MERGED_BYTES - tail.bytes, self._ample - self.delta_bytes, self._ample_share - queue.bytes)
        texts: list[str] = []
        size = 0
        with contextlib.suppress(Exception):  # `admit` decides about odd values
            for event in islice(events, start, None):
                if type(event) is not dict:
                    break
                get = event.get
                delta = get("delta")
                own = get("sequence_number")
                if (
                    type(own) is not int
                    or own != number + 1
                    or type(delta) is not str
                    or get("type") != kind
                    or get("output_index") != output_index
                    or get("content_index") != content_index
                    or get("summary_index") != summary_index
                    or get("item_id") != item_id
                ):
                    break
                larger = size + getsizeof(delta) + FRAGMENT_BYTES
                if larger > room:
                    break
                size = larger
                number = own
                texts.append(delta)
        if texts:
            if tail.fragments is None:
                tail.fragments = [tail.event["delta"]]
            tail.fragments += texts
            tail.bytes += size
            queue.bytes += size
            self.delta_bytes += size
            queue.last_number = part.highest = number
            part.note_merged(queue.run_start, number)
            self.books.seen += len(texts)
        return len(texts)

    def admit(self, queue: ResponseQueue, event: Any) -> None:
        """Keep, merge, reduce or drop an event."""
        self.books.seen += 1
        if queue.is_over or queue.is_gone or not isinstance(event, dict):
            self._refuse(queue, event)
            return
        kind = event.get("type")
        delta = event.get("delta")
        if type(kind) is not str or (delta is not None and type(delta) is not str):
            event = _with_exact_strings(event)
            kind, delta = event.get("type"), event.get("delta")
        if type(delta) is str and type(kind) is str and kind in DELTAS:
            self._admit_delta(queue, event, kind, delta)
        elif type(kind) is str and (kind in FRAMES or kind.startswith("deltaloom.")):
            self._admit_frame(queue, event, kind)
        else:
            self._admit_other(queue, event)

    def _refuse(self, queue: ResponseQueue, event: Any) -> None:
        if not isinstance(event, dict):
            self.books.drop("invalid", queue.response_id)
        elif queue.is_over:
            self.books.drop("after_end", queue.response_id, is_loss=False)
        else:
            self.books.drop("response_dropped", queue.response_id)

    def _admit_delta(self, queue: ResponseQueue, event: Event, kind: str, delta: str) -> None:
        number, own = self._number_of_delta(queue, event)
        if number is None:
            return
        get = event.get
        place = (kind, get("output_index"), get("content_index"), get("summary_index"), get("item_id"))
        part = queue.parts.get(place)
        if part is None and len(queue.parts) < _PARTS:
            part = queue.parts[place] = PartNumbers()
        if part is not None and not self._follows(queue, part, number):
            return
        size = getsizeof(delta)
        whole = size + DELTA_BYTES
        if get("logprobs") or not event.keys() <= _SLIM:
            whole = max(whole, bytes_of(event))
        tail = part.tail_in(queue.turn) if part is not None else None
        value = DELTAS[kind]
        if value is Value.REFUSAL and self._opens_refusal(queue, place[1:4], whole):
            queue.opened.add(place[1:4])
            self._keep(queue, WaitingEvent(event, Value.FRAME, own, whole))
            self.urgent[queue] = None
            return
        used = max(self.delta_bytes / self.delta_reserve, queue.bytes / self.delta_share)
        if used >= LIMITS[value] or self.delta_bytes + whole > self.delta_reserve:
            self.books.drop("over_budget", queue.response_id)
        elif whole > self._event_bytes:
            self.books.drop("too_large", queue.response_id)
        elif part is not None and tail is not None and tail.bytes + size <= MERGED_BYTES:
            self._merge(queue, tail, delta, size + FRAGMENT_BYTES)
            part.note_merged(queue.run_start, number)
            queue.hot = (part, place) if own is None else None
        else:
            waiting = WaitingEvent(event, value, own, whole, part)
            if part is not None and part.may_merge:
                part.tail, part.turn = waiting, queue.turn
                queue.hot = (part, place) if own is None else None
            self._keep(queue, waiting)

    def _follows(self, queue: ResponseQueue, part: PartNumbers, number: int) -> bool:
        """Note the number of a delta; return False if the delta was dropped as a repeat of a merged one."""
        if number > part.highest:
            part.highest = number
            return True
        part.may_merge = False
        queue.hot = None
        if part.may_be_merged(number):
            # No worker can recognise a repeat of a part of a merged delta.
            self.books.drop("repeated", queue.response_id)
            return False
        return True

    def _merge(self, queue: ResponseQueue, waiting: WaitingEvent, delta: str, size: int) -> None:
        if waiting.fragments is None:
            waiting.fragments = [waiting.event["delta"]]
        waiting.fragments.append(delta)
        waiting.bytes += size
        queue.bytes += size
        self.delta_bytes += size

    def _opens_refusal(self, queue: ResponseQueue, place: object, size: int) -> bool:
        """Return True for the first delta of a refusal, if the closings' reserve has a place for it."""
        is_first = len(queue.opened) < _OPENED and place not in queue.opened
        return is_first and self._fits_frame(queue, size, 1.0)

    def _number_of_delta(self, queue: ResponseQueue, event: Event) -> tuple[int | None, int | None]:
        """Return the number of a delta, and the publisher's number if the caller gives none to any.

        The number is None if the delta was dropped.
        """
        number = event.get("sequence_number")
        if type(number) is int and queue.number is None:
            queue.is_numbered = True
            self._go_on(queue, number)
            return number, None
        if queue.is_numbered:
            # Without a number, a repeat of any delta of its part could no longer be recognised.
            self.books.drop("unnumbered", queue.response_id)
            return None, None
        own = self._next_number(queue)
        self._go_on(queue, own)
        return own, own

    def _go_on(self, queue: ResponseQueue, number: int) -> None:
        """Note the number of an event. Deltas are merged only within a run of consecutive numbers."""
        if number != queue.last_number + 1:
            queue.forget_tails()
            queue.run_start = number
        queue.last_number = number

    def _next_number(self, queue: ResponseQueue) -> int:
        if queue.number is None:
            queue.number = self._first_number()
        queue.number += 1
        return queue.number - 1

    def _numbered(self, queue: ResponseQueue, event: Event) -> int | None:
        """Return the publisher's number for an event that is not a delta; None to leave it as it is."""
        queue.forget_tails()
        number = event.get("sequence_number")
        if queue.number is not None:
            number = self._next_number(queue)
            self._go_on(queue, number)
            return number
        if type(number) is int:
            queue.is_numbered = True
            self._go_on(queue, number)
        return None

    def _admit_frame(self, queue: ResponseQueue, event: Event, kind: str) -> None:
        own = self._numbered(queue, event)
        size = bytes_of(event)
        if size > self._event_bytes or not self._fits_frame(queue, size, REDUCE_FROM):
            smaller = reduced(event)
            if smaller is not None:
                self.books.reduced += 1
                if has_output(event):
                    self.books.lose(queue.response_id, 1)
                event, size = smaller, bytes_of(smaller)
            elif kind in COPIES and not self._fits_frame(queue, size, REDUCE_FROM):
                self.books.drop("over_budget", queue.response_id)
                return
        if size > self._event_bytes:
            self.books.drop("too_large", queue.response_id)
        elif self._fits_frame(queue, size, 1.0):
            self._keep(queue, WaitingEvent(event, Value.FRAME, own, size))
            if kind in URGENT:
                self.urgent[queue] = None
        else:
            self._drop_response(queue)
            self.books.drop("response_dropped", queue.response_id)

    def _admit_other(self, queue: ResponseQueue, event: Event) -> None:
        """Admit an event of a type that changes no text; it is the first to be dropped."""
        own = self._numbered(queue, event)
        size = bytes_of(event)
        used = max((self.delta_bytes + size) / self.delta_reserve, queue.bytes / self.delta_share)
        if size > self._event_bytes:
            self.books.drop("too_large", queue.response_id, is_loss=False)
        elif used >= LIMITS[Value.ANSWER]:
            self.books.drop("over_budget", queue.response_id, is_loss=False)
        else:
            self._keep(queue, WaitingEvent(event, Value.ANSWER, own, size))

    def _fits_frame(self, queue: ResponseQueue, size: int, share: float) -> bool:
        return (
            self.frame_bytes + size <= self.frame_reserve * share
            and queue.frame_bytes + size <= self.frame_share * share
        )

    def _keep(self, queue: ResponseQueue, waiting: WaitingEvent) -> None:
        if waiting.value is Value.FRAME:
            queue.frame_bytes += waiting.bytes
            self.frame_bytes += waiting.bytes
        else:
            queue.bytes += waiting.bytes
            self.delta_bytes += waiting.bytes
        queue.waiting.append(waiting)
        self.with_events[queue] = None

    def release(self, queue: ResponseQueue, delta_bytes: int, frame_bytes: int) -> None:
        """Release the memory of events that no longer wait."""
        queue.bytes -= delta_bytes
        self.delta_bytes -= delta_bytes
        queue.frame_bytes -= frame_bytes
        self.frame_bytes -= frame_bytes

    def drop_waiting(self, queue: ResponseQueue, reason: LossReason) -> None:
        """Drop all waiting events of a response."""
        for waiting in queue.take():
            self._drop(queue, waiting, reason)

    def _drop_response(self, queue: ResponseQueue) -> None:
        queue.is_gone = True
        self.drop_waiting(queue, "response_dropped")

    def _drop(self, queue: ResponseQueue, waiting: WaitingEvent, reason: LossReason) -> None:
        is_frame = waiting.value is Value.FRAME
        self.release(queue, 0 if is_frame else waiting.bytes, waiting.bytes if is_frame else 0)
        kind = waiting.event.get("type")  # of an odd event it may be anything
        changes_text = is_frame or (type(kind) is str and kind in DELTAS)
        self.books.drop(reason, queue.response_id, waiting.count, is_loss=changes_text)

    def make_room(self) -> None:
        """Drop waiting deltas that are in the way of more valuable ones."""
        for value in (Value.ANSWER, Value.REASONING):
            if self.delta_bytes <= self.delta_reserve * EVICT_FROM:
                return
            for queue in self.with_events:
                self._evict(queue, value)

    def _evict(self, queue: ResponseQueue, value: Value) -> None:
        """Drop the waiting deltas of a response that have this value."""
        kept = []
        for waiting in queue.waiting:
            if waiting.value is value:
                self._drop(queue, waiting, "over_budget")
            else:
                kept.append(waiting)
        queue.waiting = kept
        queue.forget_tails()
