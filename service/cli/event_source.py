r"""Split a file or pipe into streaming events, each byte for byte as it was written.

The first line decides between three formats:

- JSON lines: one event per line;
- server-sent events: `data:` lines, several of them joined by line feeds, an empty line after each event;
  `id:`, `retry:`, comments and unknown fields are ignored. `event:` gives the type if the data have none.
  (https://html.spec.whatwg.org/multipage/server-sent-events.html)
- a JSON document over several lines, such as error bodies and exports: one event, or one array of events.

Lines end in LF, CRLF or CR. The text is UTF-8, with or without a byte order mark, or UTF-16 with one.
`[DONE]`, which ends a stream, is not an event. This module does no I/O: it turns bytes into events, and these
into entries.
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
"""Maximum events held back to see whether one of them contains the response's id."""

STREAMS = 10_000
"""Maximum streams of one connection that are distinguished by their `stream_id`."""

_TRIES = 20
"""Maximum attempts to parse an unfinished document over several lines, as each parses it from the start."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE = re.compile(rb"\r\n|\n|\r")
_SSE_LINE = re.compile(rb"\s*[A-Za-z_-]*:|\s*data\s*$")
_OPENS_DOCUMENT = re.compile(rb"\s*[{\[]\s*$")
_BEGINS_JSON = (b"{", b"[")


class TooLargeError(ValueError):
    """A line, or an event over several lines, exceeds the size of an entry; the text names the line."""


class EventReader:
    """A parser that splits input into events.

    Args:
        most_bytes: maximum size of a line or an event. A larger one is not held in memory: once the events
            before it were returned, `feed` and `close` raise `TooLargeError`.
    """

    def __init__(self, most_bytes: int = sys.maxsize) -> None:
        self._most_bytes = most_bytes
        self._lines = _Lines()
        self._form: _JsonLines | _ServerSent | _Document | None = None
        self._number = 0
        """Number of the latest line."""
        self._began = 1
        """Number of the line on which the latest event begins."""
        self._too_large: str | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that end in `data`."""
        self._check()
        events = list(self._events(self._lines.feed(data)))
        if self._too_large is None and self._lines.held > self._most_bytes:
            self._too_large = f"line {self._number + 1} has"
        return events

    def close(self) -> list[bytes]:
        """Return the remaining events at the end of the input, with or without a last line feed."""
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
    """A parser that splits bytes into lines in UTF-8, without line ends."""

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._head = b""
        """First bytes, until they are enough to detect the encoding."""
        self._detected = False
        self._rest: list[bytes] = []
        """Pieces of the unfinished line."""
        self.held = 0
        """Size of the unfinished line in bytes."""
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that end in `data`."""
        if not self._detected:
            data = self._head + data
            if len(data) < len(codecs.BOM_UTF8):
                self._head = data
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
        """Detect the encoding; return the bytes without a UTF-8 byte order mark."""
        self._detected, self._head = True, b""
        if data.startswith(_UTF_16):
            self._decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
        return data.removeprefix(codecs.BOM_UTF8)

    def close(self) -> list[bytes]:
        """Return the remaining lines, including the last, unterminated one."""
        begun, self._head, self._detected = self._head.removeprefix(codecs.BOM_UTF8), b"", True
        lines = self.feed(begun) if begun else []
        last, self._rest = b"".join(self._rest), []
        return [*lines, last]


def _form_of(first: bytes) -> _JsonLines | _ServerSent | _Document:
    """Return a parser for the format, detected by the first line that is not empty."""
    if _OPENS_DOCUMENT.match(first):
        return _Document()
    return _ServerSent() if _SSE_LINE.match(first) else _JsonLines()


class _JsonLines:
    """A parser of JSON lines: one event per line."""

    held = 0
    """Size of an unfinished event in bytes."""

    def feed(self, line: bytes) -> Iterator[bytes]:
        """Yield the event of a line, if it has one."""
        event = line.strip()
        if event and event != END_MARK:
            yield event

    def close(self) -> Iterator[bytes]:
        """Yield nothing: no line is held back."""
        yield from ()


class _Document:
    """A parser of JSON over several lines: consecutive events, each of which may be an array."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._tries = 0
        self.held = 0

    def feed(self, line: bytes) -> Iterator[bytes]:
        """Yield the event that this line completes; indented JSON closes an event in the first column."""
        self._lines.append(line)
        self.held += 1 + len(line)
        if line.startswith((b"}", b"]")) and self._tries < _TRIES:
            self._tries += 1
            text = b"\n".join(self._lines).strip()
            if _is_json(text):
                self._lines, self._tries, self.held = [], 0, 0
                yield text

    def close(self) -> Iterator[bytes]:
        """Yield the rest unchanged."""
        text, self._lines = b"\n".join(self._lines).strip(), []
        if text and text != END_MARK:
            yield text


class _ServerSent:
    """A parser of server-sent events that tolerates common deviations of servers."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._name = b""
        self.held = 0

    def feed(self, line: bytes) -> Iterator[bytes]:
        """Yield the events that this line completes."""
        if not line.strip():
            yield from self.close()
            return
        name, colon, value = line.strip().partition(b":")
        if line.strip().startswith(_BEGINS_JSON):  # data on a line without `data:`
            self._hold(line.strip())
        elif name == b"event":
            self._name = value.strip()
        elif name == b"data" and colon:
            value = value.removeprefix(b" ")
            # Some servers omit the empty line. In data over several lines, the first is not a whole event.
            if len(self._data) == 1 and value.startswith(_BEGINS_JSON) and _is_json(self._data[0]):
                yield from self.close()
            self._hold(value)

    def _hold(self, data: bytes) -> None:
        self._data.append(data)
        self.held += 1 + len(data)

    def close(self) -> Iterator[bytes]:
        """Yield the events that an empty line, or the end of the input, completes."""
        lines, self._data, self.held = self._data, [], 0
        name, self._name = self._name, b""
        whole = b"\n".join(lines).strip()
        # If a line was cut off, or empty lines are missing, treat each line as an event.
        apart = len(lines) > 1 and not _is_json(whole)
        for event in [line.strip() for line in lines] if apart else [whole]:
            if event and event != END_MARK:
                yield _typed(event, name.decode("utf-8", "replace"))


def _typed(event: bytes, name: str) -> bytes:
    """Return an event with the type of its `event:` line, if it is an object without a type."""
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
    """The properties of an event that a producer needs; the worker examines it fully."""

    response_id: str | None = None
    """Id of the response that this event begins, or None."""
    is_object: bool = False
    """True for a JSON object, false for an array of events or invalid JSON."""
    broken: bool = False
    """True if the worker will not be able to read the event."""
    mentions: str | None = None
    """Id of the response that the event belongs to, if it names one."""
    stream_id: str | None = None
    """Identifies the response among several on one connection, if present."""


def look_at(event: bytes) -> Look:
    """Examine whether an event is readable, and which response it belongs to."""
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
        return json.loads(event.decode())  # the fast parser refuses unpaired surrogates


def _has_type(value: Any) -> bool:
    return isinstance(value, dict) and (isinstance(value.get("type"), str) or is_error(value))


class PackedEntry(NamedTuple):
    """The contents of a stream entry."""

    response_id: str
    body: bytes
    events: int


class Packer:
    """A packer of events into entries, which also determines their response.

    Args:
        response_id: id for all events. None: the id in the latest `response.created`, on the same
            `stream_id` if there are several. Earlier events get the first such id. If there is none, the
            first event with a response's id decides; if none has one, a new id is made.
        coalesce: maximum events per entry, as a JSON array if there are several. An event that is not a JSON
            object gets an entry of its own, since it would make the array invalid.
        most_bytes: maximum size of an array; a larger one is split.
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

    def add(self, event: bytes, look: Look) -> list[PackedEntry]:
        """Add an event, and return the entries that are now complete."""
        if self._response_id is not None:
            return list(self._pack(event, look))
        self._held.append((event, look))
        if look.response_id is None and len(self._held) < LOOK_AHEAD:
            return []
        return self._let_go(look.response_id)

    def close(self) -> list[PackedEntry]:
        """Return the remaining entries at the end of the input."""
        return [*self._let_go(None), *self._complete()]

    def _let_go(self, response_id: str | None) -> list[PackedEntry]:
        held, self._held = self._held, []
        if held:
            mentioned = next((look.mentions for _, look in held if look.mentions), None)
            self._response_id = response_id or mentioned or f"resp_{secrets.token_hex(12)}"
        return [entry for event, look in held for entry in self._pack(event, look)]

    def _pack(self, event: bytes, look: Look) -> Iterator[PackedEntry]:
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

    def _complete(self) -> Iterator[PackedEntry]:
        packed, self._packed, self._packed_bytes = self._packed, [], 0
        if len(packed) == 1:
            yield self._entry(packed[0], 1)
        elif packed:
            yield self._entry(b"[" + b",".join(packed) + b"]", len(packed))

    def _entry(self, body: bytes, events: int) -> PackedEntry:
        if self._response_id is None:  # pragma: no cover - `add` and `_let_go` set it
            raise AssertionError
        return PackedEntry(self._response_id, body, events)
