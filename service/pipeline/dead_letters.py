"""Dead letters: what could not be handled, why, and the original to replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom.messages import DeadLetter
from handlers.core.effects import Context
from handlers.core.outputs import time_of
from service.field_json import json_of
from service.pipeline.decode import UnreadableError
from service.visible import shortened, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.pipeline.decode import Said, Unreadable
    from service.pipeline.opened import Opened
    from service.ports.storage import Entry

OWN_LETTERS = 100
"""Bad events of one array that have letters of their own. The others share one, or one for each reason."""

COPIED_BYTES = 64 * 1024
"""Bytes of the context that the letters of one array repeat, at most; the first letter has it anyway."""

ERROR_LENGTH = 500
"""Characters of an error."""


class Letters:
    """The dead letters of a batch, by entry.

    The bytes of all letters of an entry are bounded: each event stands in one of them, as it was written, and
    what is copied beside it is the context, `COPIED_BYTES` of it in all.
    """

    def __init__(self, stream: str, now_ms: int) -> None:
        self._stream = stream
        self._now_ms = now_ms
        self._bad: dict[int, dict[int | None, Unreadable]] = {}
        """For each entry, what is wrong at which position of its array; None stands for all of it."""
        self._written: dict[int, list[DeadLetter]] = {}
        self._copied: dict[int, int] = {}
        """Bytes of each entry's context that `letter` has repeated."""

    def add(self, index: int, position: int | None, why: Unreadable) -> None:
        """Note that an event of an entry, or all of it, is bad; the first reason counts."""
        self._bad.setdefault(index, {}).setdefault(position, why)

    def write(self, index: int, opened: Opened) -> None:
        """Write the letters of what was noted of an entry since the last time."""
        if bad := self._bad.pop(index, None):
            self._written.setdefault(index, []).extend(self._letters_of(opened, bad))

    def letter(self, index: int, opened: Opened, position: int, why: Unreadable) -> DeadLetter:
        """Return the letter of an event that is written only if its response has no such letter."""
        try:
            raws, said = opened.slots.raws, _fields_said(opened.said)
        except UnreadableError:  # the quick way of reading takes a little more than the slow one does
            raws, said = [], {}
        if len(raws) <= 1:
            return self._letter(opened.entry, why, opened.entry.fields)
        self._copied[index] = self._copied.get(index, 0) + _size(said)
        if self._copied[index] > COPIED_BYTES:
            said = _fields_said(opened.said._replace(context=Context()))
        return self._letter(opened.entry, why, {b"event": raws[position], **said})

    def wants(self, index: int) -> bool:
        """Return whether something of an entry was noted and is not written."""
        return index in self._bad

    def all(self) -> list[tuple[int, DeadLetter]]:
        """Return the letters in order, each after the index of its entry."""
        return [(index, letter) for index in sorted(self._written) for letter in self._written[index]]

    def _letters_of(self, opened: Opened, bad: dict[int | None, Unreadable]) -> Iterator[DeadLetter]:
        if None in bad:
            yield self._letter(opened.entry, bad[None], opened.entry.fields)
            return
        raws, said = opened.slots.raws, _fields_said(opened.said)
        places = sorted((position, why) for position, why in bad.items() if position is not None)
        own = min(OWN_LETTERS, 1 + COPIED_BYTES // (1 + _size(said)))
        for position, why in places[:own]:
            yield self._letter(opened.entry, why, {b"event": raws[position], **said})
        by_reason: dict[str, list[tuple[int, Unreadable]]] = {}
        for place in places[own:]:
            by_reason.setdefault(place[1].reason, []).append(place)
        for rest in by_reason.values():
            event = b"[" + b",".join(raws[position] for position, _ in rest) + b"]"
            why = rest[0][1]
            why = why._replace(error=f"{len(rest)} more events of one array; the first of them: {why.error}")
            yield self._letter(opened.entry, why, {b"event": event, **said})

    def _letter(self, entry: Entry, why: Unreadable, fields: Mapping[bytes, bytes]) -> DeadLetter:
        return DeadLetter(
            reason=why.reason,
            error=shortened(visible(why.error), ERROR_LENGTH),  # names in it are the producer's
            stream=self._stream,
            entry_id=str(entry.id),
            deliveries=entry.deliveries,
            failed_at=time_of(self._now_ms),
            entry=json_of(fields),
            entry_bytes=entry.whole_bytes or None,
        )


def _fields_said(said: Said) -> dict[bytes, bytes]:
    """Return the fields that say the same as those beside the events of an entry."""
    context = said.context._replace(truncated=())
    pairs = [("response_id", said.response_id), *context.pairs()]
    return {name.encode(): value.encode() for name, value in pairs if value is not None}


def _size(fields: Mapping[bytes, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in fields.items())
