r"""Streaming events out of a file or a pipe, each exactly as it was written there.

Three forms, told apart by the first line:

- JSON lines: one event a line;
- server-sent events: `data:` lines, several of them joined by line feeds, an empty line after each event;
  `id:`, `retry:`, comments and unknown fields are passed over. `event:` gives the type where data have none.
  (https://html.spec.whatwg.org/multipage/server-sent-events.html)
- a JSON document over several lines, as error bodies and exports are: one event, or one array of events.

Lines end in LF, CRLF or CR. The text is UTF-8, with or without a byte order mark, or UTF-16 with one.
`[DONE]`, which ends a stream, is no event. Nothing here reads or writes: bytes go in, events and entries come
out.
"""

from __future__ import annotations

import codecs
import json
import re
import secrets
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json

from service.pipeline.decode import is_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

END_MARK = b"[DONE]"
LOOK_AHEAD = 20
"""Events that are held back at most, to see whether one of them says the response's id."""

STREAMS = 10_000
"""Streams of one connection that are kept apart at most, by their `stream_id`."""

_TRIES = 20
"""How often a document over several lines is looked at, to see whether it is complete, before its end."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE = re.compile(rb"\r\n|\n|\r")
_SSE_LINE = re.compile(rb"\s*[A-Za-z_-]*:|\s*data\s*$")
_OPENS_DOCUMENT = re.compile(rb"\s*[{\[]\s*$")
_BEGINS_JSON = (b"{", b"[")


class TooLargeError(ValueError):
    """A line, or an event over several lines, is larger than an entry may be; the text names the line."""


class EventReader:
    """Splits what is fed to it into events.

    Args:
        most_bytes: of a line or an event. One that is larger is not held in memory: once what comes before
            it was returned, `feed` and `close` raise `TooLargeError`.
    """

    def __init__(self, most_bytes: int = sys.maxsize) -> None:
        self._most_bytes = most_bytes
        self._lines = _Lines()
        self._form: _JsonLines | _ServerSent | _Document | None = None
        self._number = 0
        """Of the latest line."""
        self._began = 1
        """The number of the line with which the latest event begins."""
        self._too_large: str | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that end in `data`."""
        self._check()
        events = list(self._events(self._lines.feed(data)))
        if self._too_large is None and self._lines.held > self._most_bytes:
            self._too_large = f"line {self._number + 1} has"
        return events

    def close(self) -> list[bytes]:
        """Return what is left when the input has ended, with or without a last line feed."""
        self._check()
        events = list(self._events(self._lines.close()))
        self._check()
        return [*events, *(self._form.close() if self._form else ())]

    def _check(self) -> None:
        if self._too_large is not None:
            raise TooLargeError(f"{self._too_large} more than {self._most_bytes} bytes")

    def _events(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            self._number += 1
            if self._form is None and line.strip():
                self._form = _form_of(line)
            if self._form is None:
                continue
            if not self._form.held:
                self._began = self._number
            yield from self._form.feed(line)
            if self._form.held > self._most_bytes:
                self._too_large = f"the event that begins in line {self._began} has"
                return


class _Lines:
    """Splits bytes into lines, without their ends, in UTF-8."""

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._begun = b""
        """The first bytes, until they tell the encoding."""
        self._told = False
        self._rest: list[bytes] = []
        """The pieces of the line that has not ended."""
        self.held = 0
        """Bytes of that line so far."""
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that end in `data`."""
        if not self._told:
            data = self._begun + data
            if len(data) < len(codecs.BOM_UTF8):
                self._begun = data
                return []
            data = self._begin(data)
        if self._decoder is not None:
            data = self._decoder.decode(data).encode("utf-8", "surrogatepass")
        if not data:
            return []
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        first, *others = _LINE.split(data)
        self._rest.append(first)
        self.held += len(first)
        if not others:
            return []
        self.held = len(others[-1])
        lines = [b"".join(self._rest), *others[:-1]]
        self._rest = [others[-1]]
        return lines

    def _begin(self, data: bytes) -> bytes:
        """Note the encoding; return the bytes without a mark of UTF-8."""
        self._told, self._begun = True, b""
        if data.startswith(_UTF_16):
            self._decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
        return data.removeprefix(codecs.BOM_UTF8)

    def close(self) -> list[bytes]:
        """Return the last line, which has no end."""
        begun, self._begun, self._told = self._begun.removeprefix(codecs.BOM_UTF8), b"", True
        lines = self.feed(begun) if begun else []
        last, self._rest = b"".join(self._rest), []
        return [*lines, last]


def _form_of(first: bytes) -> _JsonLines | _ServerSent | _Document:
    """Tell the form by the first line that is not empty."""
    if _OPENS_DOCUMENT.match(first):
        return _Document()
    return _ServerSent() if _SSE_LINE.match(first) else _JsonLines()


class _JsonLines:
    """An event a line."""

    held = 0
    """Bytes of an event that has not ended."""

    def feed(self, line: bytes) -> Iterator[bytes]:
        """Return the event of a line, if it has one."""
        event = line.strip()
        if event and event != END_MARK:
            yield event

    def close(self) -> Iterator[bytes]:
        """Return nothing: no line is held back."""
        yield from ()


class _Document:
    """JSON over several lines: events one behind the other, each of which may be an array."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._tries = 0
        self.held = 0

    def feed(self, line: bytes) -> Iterator[bytes]:
        """Return the event that a line ends: writers that indent close an event in the first column."""
        self._lines.append(line)
        self.held += 1 + len(line)
        if line.startswith((b"}", b"]")) and self._tries < _TRIES:
            self._tries += 1
            text = b"\n".join(self._lines).strip()
            if _is_json(text):
                self._lines, self._tries, self.held = [], 0, 0
                yield text

    def close(self) -> Iterator[bytes]:
        """Return what is left, as it is."""
        text, self._lines = b"\n".join(self._lines).strip(), []
        if text and text != END_MARK:
            yield text


class _ServerSent:
    """Server-sent events, and what servers make of them."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._name = b""
        self.held = 0

    def feed(self, line: bytes) -> Iterator[bytes]:
        """Return the events that a line ends."""
        if not line.strip():
            yield from self.close()
            return
        name, colon, value = line.strip().partition(b":")
        if line.strip().startswith(_BEGINS_JSON):  # the data stand on a line of their own
            self._hold(line.strip())
        elif name == b"event":
            self._name = value.strip()
        elif name == b"data" and colon:
            value = value.removeprefix(b" ")
            # Some servers leave out the empty line. Data over several lines begin with no whole event.
            if len(self._data) == 1 and value.startswith(_BEGINS_JSON) and _is_json(self._data[0]):
                yield from self.close()
            self._hold(value)

    def _hold(self, data: bytes) -> None:
        self._data.append(data)
        self.held += 1 + len(data)

    def close(self) -> Iterator[bytes]:
        """Return the events that an empty line, or the end, ends."""
        lines, self._data, self.held = self._data, [], 0
        name, self._name = self._name, b""
        whole = b"\n".join(lines).strip()
        # Where a line was cut off, or the empty lines are missing, each line is an event of its own.
        apart = len(lines) > 1 and not _is_json(whole)
        for event in [line.strip() for line in lines] if apart else [whole]:
            if event and event != END_MARK:
                yield _typed(event, name.decode("utf-8", "replace"))


def _typed(event: bytes, name: str) -> bytes:
    """Return an event with the type that its `event:` line has, if it is an object without one."""
    quoted = json.dumps(name).encode()
    if name in ("", "message") or re.search(rb'"type"\s*:\s*' + re.escape(quoted), event):
        return event
    try:
        value = _parsed(event)
    except (ValueError, RecursionError):
        return event
    if not isinstance(value, dict) or "type" in value:
        return event
    return b'{"type":' + quoted + (b"," if value else b"") + event[1:]


def _is_json(text: bytes) -> bool:
    try:
        _parsed(text)
    except (ValueError, RecursionError):
        return False
    return True


class Look(NamedTuple):
    """What a producer needs to know of an event; the worker looks closer."""

    response_id: str | None = None
    """The id of the response that begins here."""
    is_object: bool = False
    """One event, and not an array of events, or no JSON at all."""
    broken: bool = False
    """The worker will not be able to read it."""
    mentions: str | None = None
    """The id of the response that it belongs to, if it has one."""
    stream_id: str | None = None
    """Which of the responses on one connection it belongs to."""


def look_at(event: bytes) -> Look:
    """Look whether an event can be read, and to which response it belongs."""
    try:
        value = _parsed(event)
    except (ValueError, RecursionError):
        return Look(broken=True)
    if isinstance(value, list):
        return Look(broken=not all(_has_type(each) for each in value))
    if not _has_type(value):
        return Look(is_object=isinstance(value, dict), broken=True)
    response = value.get("response")
    mentions = _text(response.get("id")) if isinstance(response, dict) else None
    return Look(
        mentions if value.get("type") == "response.created" else None,
        is_object=True,
        mentions=mentions,
        stream_id=_text(value.get("stream_id")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _parsed(event: bytes) -> Any:
    try:
        return from_json(event)
    except ValueError:
        return json.loads(event.decode())  # half a surrogate pair, which the fast parser refuses


def _has_type(value: Any) -> bool:
    return isinstance(value, dict) and (isinstance(value.get("type"), str) or is_error(value))


class Entry(NamedTuple):
    """What goes into one stream entry."""

    response_id: str
    body: bytes
    events: int


class Packer:
    """Packs events into entries, and finds out which response they belong to.

    Args:
        response_id: of all events. None: the one that the latest `response.created` has, on the same
            `stream_id` if there are several. Events before the first one belong to it too. If there is none,
            the first event with a response's id says it; if none has, a fresh one is made.
        coalesce: how many events an entry holds, as a JSON array if it is more than one. What is no JSON
            object goes alone: it would spoil the array.
        most_bytes: of an array. One that would be larger is cut.
    """

    def __init__(
        self, response_id: str | None = None, coalesce: int = 1, most_bytes: int = sys.maxsize
    ) -> None:
        self._most_bytes = most_bytes
        self._packed_bytes = 0
        self._fixed = response_id is not None
        self._response_id = response_id
        self._by_stream: dict[str, str] = {}
        self._coalesce = coalesce
        self._held: list[tuple[bytes, Look]] = []
        self._packed: list[bytes] = []

    def add(self, event: bytes, look: Look) -> list[Entry]:
        """Return the entries that are complete with this event."""
        if self._response_id is not None:
            return list(self._pack(event, look))
        self._held.append((event, look))
        if look.response_id is None and len(self._held) < LOOK_AHEAD:
            return []
        return self._let_go(look.response_id)

    def close(self) -> list[Entry]:
        """Return the entries that are left when the input has ended."""
        return [*self._let_go(None), *self._complete()]

    def _let_go(self, response_id: str | None) -> list[Entry]:
        held, self._held = self._held, []
        if held:
            mentioned = next((look.mentions for _, look in held if look.mentions), None)
            self._response_id = response_id or mentioned or f"resp_{secrets.token_hex(12)}"
        return [entry for event, look in held for entry in self._pack(event, look)]

    def _pack(self, event: bytes, look: Look) -> Iterator[Entry]:
        response_id = self._response_of(look)
        if response_id != self._response_id:
            yield from self._complete()
            self._response_id = response_id
        if not look.is_object:
            yield from self._complete()
            yield self._entry(event, 1)
            return
        if self._packed_bytes + len(event) + 2 > self._most_bytes:
            yield from self._complete()
        self._packed.append(event)
        self._packed_bytes += len(event) + 1
        if len(self._packed) == self._coalesce:
            yield from self._complete()

    def _response_of(self, look: Look) -> str | None:
        """Return the id of the response that an event belongs to."""
        if self._fixed:
            return self._response_id
        stream = look.stream_id
        if look.response_id is None:
            return self._response_id if stream is None else self._by_stream.get(stream, self._response_id)
        if stream is not None and (stream in self._by_stream or len(self._by_stream) < STREAMS):
            self._by_stream[stream] = look.response_id
        return look.response_id

    def _complete(self) -> Iterator[Entry]:
        packed, self._packed, self._packed_bytes = self._packed, [], 0
        if len(packed) == 1:
            yield self._entry(packed[0], 1)
        elif packed:
            yield self._entry(b"[" + b",".join(packed) + b"]", len(packed))

    def _entry(self, body: bytes, events: int) -> Entry:
        if self._response_id is None:  # pragma: no cover - `add` and `_let_go` see to it
            raise AssertionError
        return Entry(self._response_id, body, events)
