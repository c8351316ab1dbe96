r"""Streaming events out of a file or a pipe, each exactly as it was written there.

Two forms, told apart by the first line:

- JSON lines: one event a line;
- server-sent events, as the API sends them: `data:` lines, several of them joined by line feeds, an empty
  line after each event; `event:`, `id:`, `retry:` and comments are passed over.
  (https://html.spec.whatwg.org/multipage/server-sent-events.html)

`[DONE]`, which ends a stream in either, is no event. Nothing here reads or writes: bytes go in, events and
entries come out.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

END_MARK = b"[DONE]"
LOOK_AHEAD = 20
"""Events that are held back at most, to see whether one of them says the response's id."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SSE_LINE = re.compile(rb"(?:data|event|id|retry)?:")


class EventReader:
    """Splits what is fed to it into events."""

    def __init__(self) -> None:
        self._rest = b""
        self._sse: bool | None = None
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The events that end in `data`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return list(self._events(lines))

    def close(self) -> list[bytes]:
        """What is left when the input has ended, with or without a last line feed."""
        last, self._rest = self._rest, b""
        return list(self._events([last, b""]))

    def _events(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if self._sse is None and line.strip():
                line = line.removeprefix(_BYTE_ORDER_MARK)
                self._sse = _SSE_LINE.match(line) is not None
            event = self._sse_line(line) if self._sse else line.strip()
            if event and event != END_MARK:
                yield event

    def _sse_line(self, line: bytes) -> bytes | None:
        """The event that this line ends, if it ends one."""
        if not line:
            event, self._data = b"\n".join(self._data), []
            return event.strip()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None


class Look(NamedTuple):
    """What a producer needs to know of an event; the worker looks closer."""

    response_id: str | None = None
    """The id of the response that begins here."""
    is_object: bool = False
    """One event, and not an array of events, or no JSON at all."""
    broken: bool = False
    """The worker will not be able to read it."""


def look_at(event: bytes) -> Look:
    """Look whether an event can be read, and whether a response begins with it."""
    try:
        value = _parsed(event)
    except (ValueError, RecursionError):
        return Look(broken=True)
    if isinstance(value, list):
        return Look(broken=not all(_has_type(each) for each in value))
    if not _has_type(value):
        return Look(is_object=isinstance(value, dict), broken=True)
    response = value.get("response") if value["type"] == "response.created" else None
    response_id = response.get("id") if isinstance(response, dict) else None
    return Look(response_id if isinstance(response_id, str) and response_id else None, is_object=True)


def _parsed(event: bytes) -> Any:
    try:
        return from_json(event)
    except ValueError:
        return json.loads(event.decode())  # half a surrogate pair, which the fast parser refuses


def _has_type(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


class Entry(NamedTuple):
    """What goes into one stream entry."""

    response_id: str
    body: bytes
    events: int


class Packer:
    """Packs events into entries, and finds out which response they belong to.

    Args:
        response_id: of all events. None: the one that the latest `response.created` has; events before
            the first one belong to it too; a fresh one if there is none.
        coalesce: how many events an entry holds, as a JSON array if it is more than one. What is no JSON
            object goes alone: it would spoil the array.
    """

    def __init__(self, response_id: str | None = None, coalesce: int = 1) -> None:
        self._fixed = response_id is not None
        self._response_id = response_id
        self._coalesce = coalesce
        self._held: list[tuple[bytes, Look]] = []
        self._packed: list[bytes] = []
        self.response_ids: dict[str, None] = {}
        """The responses so far, in order."""

    def add(self, event: bytes, look: Look) -> list[Entry]:
        """The entries that are complete with this event."""
        if self._response_id is not None:
            return list(self._pack(event, look))
        self._held.append((event, look))
        if look.response_id is None and len(self._held) < LOOK_AHEAD:
            return []
        return self._let_go(look.response_id)

    def close(self) -> list[Entry]:
        """The entries that are left when the input has ended."""
        return [*self._let_go(None), *self._complete()]

    def _let_go(self, response_id: str | None) -> list[Entry]:
        held, self._held = self._held, []
        if held:
            self._response_id = response_id or f"resp_{secrets.token_hex(12)}"
        return [entry for event, look in held for entry in self._pack(event, look)]

    def _pack(self, event: bytes, look: Look) -> Iterator[Entry]:
        if look.response_id not in (None, self._response_id) and not self._fixed:
            yield from self._complete()
            self._response_id = look.response_id
        if not look.is_object:
            yield from self._complete()
            yield self._entry(event, 1)
            return
        self._packed.append(event)
        if len(self._packed) == self._coalesce:
            yield from self._complete()

    def _complete(self) -> Iterator[Entry]:
        packed, self._packed = self._packed, []
        if len(packed) == 1:
            yield self._entry(packed[0], 1)
        elif packed:
            yield self._entry(b"[" + b",".join(packed) + b"]", len(packed))

    def _entry(self, body: bytes, events: int) -> Entry:
        if self._response_id is None:  # pragma: no cover - `add` and `_let_go` see to it
            raise AssertionError
        self.response_ids[self._response_id] = None
        return Entry(self._response_id, body, events)
