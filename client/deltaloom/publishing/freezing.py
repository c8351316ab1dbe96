"""Freeze waiting events to the bytes of stream entries, which never change again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from deltaloom.publishing.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deltaloom.publishing.admission import ResponseQueue, WaitingEvent

ENTRY_EVENTS: Final = 512
"""Maximum events of an entry."""

ENTRY_BYTES: Final = 512 * 1024
"""Estimated bytes of the events of an entry from which on the next event gets another entry."""

_DEPTH: Final = 1_000
"""Maximum depth of an event: the default limit of Python. Where a program has raised that limit, the JSON
encoder could overflow the stack."""
_VALUES: Final = 1_000_000
"""Maximum values of an event. One of a model has far fewer."""
_CHARACTERS: Final = 64 * 1024 * 1024
"""Maximum characters in the strings of an event. No worker accepts an event of more bytes."""
_SMALL_BYTES: Final = 32 * 1024
"""Estimated bytes up to which an event has too few values to exceed these limits."""

LOSS: Final = "deltaloom.producer.loss"


class FrozenEntry:
    """A stream entry that is sent byte for byte until it is confirmed, or dropped and reported."""

    __slots__ = (
        "context",
        "delta_bytes",
        "event",
        "frame_bytes",
        "key",
        "lost",
        "may_have_arrived",
        "merged",
        "published",
        "queue",
        "response_id",
    )

    def __init__(self, key: str, response_id: str, queue: ResponseQueue | None) -> None:
        self.key = key
        """The name of the stream."""
        self.event = b""
        """JSON of the events."""
        self.queue = queue
        self.response_id = response_id
        self.published = 0
        """Number of events in it, after merging."""
        self.merged = 0
        """Number of offered deltas that were merged into these."""
        self.context: dict[str, str] = {}
        """Context fields in it, which no earlier entry has."""
        self.delta_bytes = 0
        self.frame_bytes = 0
        self.lost = 0
        """Number of dropped events that it reports."""
        self.may_have_arrived = False
        """True if the server may have it although no reply confirmed it."""

    @property
    def fields(self) -> dict[str, bytes | str]:
        """The fields of the stream entry."""
        identity = {"response_id": self.response_id} if self.response_id else {}
        return {**identity, "event": self.event, **self.context}


def loss_event(response_id: str, dropped: int) -> dict[str, Any]:
    """Return the report of dropped events of a response."""
    return {"type": LOSS, "response_id": response_id, "dropped": dropped}


def process_loss_event(dropped: int) -> dict[str, Any]:
    """Return the report of dropped events of responses that are not named."""
    return {"type": LOSS, "scope": "process", "dropped": dropped}


def groups(waiting: Sequence[WaitingEvent]) -> Iterator[list[WaitingEvent]]:
    """Divide events into those of one entry each."""
    group: list[WaitingEvent] = []
    size = 0
    for each in waiting:
        if group and (len(group) >= ENTRY_EVENTS or size + each.bytes > ENTRY_BYTES):
            yield group
            group, size = [], 0
        group.append(each)
        size += each.bytes
    if group:
        yield group


class TakenEvents(NamedTuple):
    """Events of one response on their way into entries."""

    queue: ResponseQueue
    waiting: list[WaitingEvent]
    lost: int
    context: dict[str, str]


def freeze_all(taken: list[TakenEvents]) -> tuple[list[FrozenEntry], list[tuple[ResponseQueue, int]]]:
    """Return the entries of taken events, and the numbers of events that JSON cannot express."""
    entries: list[FrozenEntry] = []
    all_bad: list[tuple[ResponseQueue, int]] = []
    for each in taken:
        queue, is_first = each.queue, True
        for group in groups(each.waiting):
            lost, context = (each.lost, each.context) if is_first else (0, {})
            entry, bad = freeze(queue, group, lost, context)
            entries.append(entry)
            is_first = False
            if bad:
                all_bad.append((queue, bad))
    return entries, all_bad


def freeze(
    queue: ResponseQueue, group: Sequence[WaitingEvent], lost: int, context: dict[str, str]
) -> tuple[FrozenEntry, int]:
    """Return the entry of some events, and the number of offered events that JSON cannot express.

    Args:
        queue: response of the events.
        group: events of the entry.
        lost: number of dropped events to report in it, before its events.
        context: context fields of the entry.
    """
    entry = FrozenEntry(queue.key, queue.response_id, queue)
    entry.lost = lost
    entry.context = context
    texts = [_json(loss_event(queue.response_id, lost))] if lost else []
    bad = 0
    for each in group:
        if each.value is Value.FRAME:
            entry.frame_bytes += each.bytes
        else:
            entry.delta_bytes += each.bytes
        try:
            texts.append(_whole_json(each) if each.fragments is None else _merged_json(each))
        except Exception:  # noqa: BLE001 - an object of the caller may raise anything, or change meanwhile
            bad += each.count
        else:
            entry.published += 1
            entry.merged += each.count - 1
    entry.event = _bytes(f"[{','.join(texts)}]")
    return entry, bad


def _whole_json(waiting: WaitingEvent) -> str:
    """Return an event as JSON.

    Raises:
        ValueError: it is nested too deeply, or too large; an event that contains itself twice is both.
    """
    content = waiting.content()
    if waiting.bytes > _SMALL_BYTES and _is_beyond_limits(content):
        raise ValueError("the event is nested too deeply, or too large")
    return _json(content)


def _is_beyond_limits(value: object) -> bool:
    """Return True if the JSON of a value would take too much of the stack, or of memory.

    A value of few bytes may give gigabytes of JSON, if it has the same object in many places.
    """
    stack, values, characters = [(value, 0)], 0, 0
    while stack:
        each, depth = stack.pop()
        inner: Iterable[object] = each  # type: ignore[assignment]
        if isinstance(each, dict):
            inner = each.values()
            characters += sum(len(name) for name in each if isinstance(name, str))
        for one in inner:
            if isinstance(one, str):
                characters += len(one)
            elif isinstance(one, dict | list | tuple):
                stack.append((one, depth + 1))
                values += len(one)
        if depth > _DEPTH or values > _VALUES or characters > _CHARACTERS:
            return True
    return False


def _merged_json(waiting: WaitingEvent) -> str:
    """Return a merged delta as JSON."""
    fragments, part, event = waiting.fragments, waiting.part, waiting.event
    if fragments is None or part is None or not event.keys() <= _USUAL:
        return _whole_json(waiting)
    number = event["sequence_number"] if waiting.number is None else waiting.number
    if part.head is None:
        place = {name: event[name] for name in _PLACE if event.get(name) is not None}
        part.head = f'{_json(place)[:-1]},"sequence_number":'
    return f'{part.head}{number},"delta":{_quoted("".join(fragments))}}}'


_PLACE: Final = ("type", "item_id", "output_index", "content_index", "summary_index")
_USUAL: Final = frozenset(_PLACE) | {"sequence_number", "delta", "logprobs", "obfuscation"}
"""Usual fields of a delta. If a delta has another one, its whole event is encoded."""


# Encoders of the standard library hold no lock that a fork could leave held in the child; those in Rust do.
_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_quoted: Final = json.encoder.encode_basestring
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _bytes(text: str) -> bytes:
    """Return JSON as bytes; half a surrogate pair is escaped."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def encoded(value: object) -> bytes:
    """Return JSON; half a surrogate pair is escaped.

    Raises:
        ValueError: JSON cannot express the value.
        TypeError: the same.
        RecursionError: the value is nested too deeply.
    """
    return _bytes(_json(value))
