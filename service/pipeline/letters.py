"""Make dead letters: each has the original of an entry or event that was not handled, and the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.messages import DeadLetter
from handlers.core.effects import ContextValues
from handlers.core.outputs import time_of
from service.field_json import json_of
from service.pipeline.decode import UnreadableError
from service.visible import shortened, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.pipeline.decode import ProducerContext, Unreadable
    from service.pipeline.entry_opener import OpenedEntry
    from service.ports.storage import Entry

OWN_LETTERS = 100
"""Maximum bad events of one array with letters of their own, for each call of `Letters.write`.

The others share one letter for each reason. Fewer have letters of their own if these would repeat more than
`COPIED_BYTES` of context.
"""

COPIED_BYTES = 64 * 1024
"""Maximum bytes of context that an array's letters for single events repeat after the first of them."""

ERROR_LENGTH = 500
"""Maximum characters of a letter's error."""


class Letters:
    """The dead letters of a batch, by entry index.

    `add` records errors, and `write` makes the letters of an entry. Their bytes are bounded: each event is in
    one letter, as it was written, and letters for single events repeat at most `COPIED_BYTES` of context.
    Letters that `letter` returns are not among them.
    """

    def __init__(self, stream: str, now_ms: int) -> None:
        self._stream = stream
        self._now_ms = now_ms
        self._bad: dict[int, dict[int | None, Unreadable]] = {}
        """Errors by entry index, then by position in the entry's array; position None is the whole entry."""
        self._written: dict[int, list[DeadLetter]] = {}
        self._copied: dict[int, int] = {}
        """Bytes of context of the letters that `letter` has made, also if left out, by entry index."""

    def add(self, index: int, position: int | None, why: Unreadable) -> None:
        """Record an error of an event (position None: of the whole entry) for the next `write`.

        The first error of a position counts. An error of the whole entry replaces those of its events.
        """
        self._bad.setdefault(index, {}).setdefault(position, why)

    def write(self, index: int, opened: OpenedEntry) -> None:
        """Turn the errors of an entry that were added since the last call into letters, which `all` returns.

        `index` is that of the entry in the batch, and `opened` the entry.
        """
        if bad := self._bad.pop(index, None):
            self._written.setdefault(index, []).extend(self._letters_of(opened, bad))

    def letter(self, index: int, opened: OpenedEntry, position: int, why: Unreadable) -> DeadLetter:
        """Return a letter about one event, which `all` does not return.

        The letter has the whole entry if the event is its only one, or if the entry cannot be read. Once the
        letters returned for the entry have `COPIED_BYTES` of context, further ones have the event and the
        response id, but no context.
        """
        try:
            raws, metadata = opened.slots.raws, _metadata_of(opened.producer)
        except UnreadableError:  # the columns take a few entries that cannot be opened
            raws, metadata = [], {}
        if len(raws) <= 1:
            return self._letter(opened.entry, why, opened.entry.fields)
        self._copied[index] = self._copied.get(index, 0) + _size(metadata)
        if self._copied[index] > COPIED_BYTES:
            metadata = _metadata_of(opened.producer._replace(context=ContextValues()))
        return self._letter(opened.entry, why, {b"event": raws[position], **metadata})

    def wants(self, index: int) -> bool:
        """Return whether an entry has errors that are not yet written as letters."""
        return index in self._bad

    def all(self) -> list[tuple[int, DeadLetter]]:
        """Return pairs of entry index and written letter, in the order of the entries."""
        return [(index, letter) for index in sorted(self._written) for letter in self._written[index]]

    def _letters_of(self, opened: OpenedEntry, bad: dict[int | None, Unreadable]) -> Iterator[DeadLetter]:
        if None in bad:
            yield self._letter(opened.entry, bad[None], opened.entry.fields)
            return
        raws, metadata = opened.slots.raws, _metadata_of(opened.producer)
        places = sorted((position, why) for position, why in bad.items() if position is not None)
        own = min(OWN_LETTERS, 1 + COPIED_BYTES // (1 + _size(metadata)))
        for position, why in places[:own]:
            yield self._letter(opened.entry, why, {b"event": raws[position], **metadata})
        by_reason: dict[str, list[tuple[int, Unreadable]]] = {}
        for place in places[own:]:
            by_reason.setdefault(place[1].reason, []).append(place)
        for rest in by_reason.values():
            event = b"[" + b",".join(raws[position] for position, _ in rest) + b"]"
            why = rest[0][1]
            why = why._replace(error=f"{len(rest)} more events of one array; the first error: {why.error}")
            yield self._letter(opened.entry, why, {b"event": event, **metadata})

    def _letter(self, entry: Entry, why: Unreadable, fields: Mapping[bytes, bytes]) -> DeadLetter:
        return DeadLetter(
            reason=why.reason,
            error=shortened(visible(why.error), ERROR_LENGTH),  # it may contain names that the producer chose
            stream=self._stream,
            entry_id=str(entry.id),
            deliveries=entry.deliveries,
            failed_at=time_of(self._now_ms),
            entry=json_of(fields),
            entry_bytes=entry.whole_bytes or None,
        )


def _metadata_of(producer: ProducerContext) -> dict[bytes, bytes]:
    """Return the response id and context values as entry fields, so that a replayed letter has them too."""
    context = producer.context._replace(truncated=())
    pairs = [("response_id", producer.response_id), *context.pairs()]
    return {name.encode(): value.encode() for name, value in pairs if value is not None}


def _size(fields: Mapping[bytes, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in fields.items())
