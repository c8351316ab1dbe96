"""Divide a body into messages: server-sent events, JSON values, or frames of AWS event streams.

Each framing has `feed`, which yields the messages that are complete, and `end`, which returns the last one
if only its terminator is missing. Any division of the bytes gives the same messages. A message may have at
most `MESSAGE_BYTES`; a longer one is left out and counted.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from deltaloom.dialects.errors import BodyError

if TYPE_CHECKING:
    from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"
"""Byte order mark in UTF-8."""

MESSAGE_BYTES = 8 * 1024 * 1024
"""Maximum bytes of one message."""


class WireMessage(NamedTuple):
    """A message of a stream."""

    value: Any
    """The parsed JSON, or `DONE`."""
    event: str = ""
    """The name of the event, if the framing has names."""


DONE = object()
"""The value of the message `[DONE]`, which ends many streams."""


class Losses(Protocol):
    """Counts what is left out of a body, by a short phrase."""

    def leave_out(self, what: str) -> None:
        """Count something that is no message."""
        ...

    def lose(self, what: str) -> None:
        """Count a message that cannot be read."""
        ...


class Framing(Protocol):
    """Divides a body into messages."""

    def feed(self, data: bytes) -> Iterator[WireMessage]:
        """Yield the messages that these bytes complete. The caller reads each before it asks for the next."""
        ...

    def end(self) -> list[WireMessage]:
        """Return the last message if only its terminator is missing."""
        ...


def parse(data: bytes, losses: Losses, event: str = "") -> list[WireMessage]:
    """Return one message, or none if the data are no JSON. Damaged JSON is lost, other text left out."""
    text = data.strip()
    if not text:
        return []
    if text == b"[DONE]":
        return [WireMessage(DONE, event)]
    try:
        return [WireMessage(_value_of(text.decode(errors="replace")), event)]
    except (ValueError, RecursionError):
        if (inner := _DOUBLED.match(text)) is not None:
            return parse(text[inner.end() :], losses, event)
        if text[:1] in {b"{", b"["}:
            losses.lose("message that is damaged JSON")
        else:
            losses.leave_out("message that is not JSON")
        return []


def _value_of(text: str) -> Any:
    """Return the value of a JSON text. Numbers of thousands of digits, which Python refuses, become 0.

    Raises:
        ValueError: the text is not JSON.
        RecursionError: it is too deep.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=_number)


_DOUBLED = re.compile(rb"(?:data:[ \t]*)+(?=[{\[])")
"""Field names before a message. There are several if each of two servers has framed it."""

_NUMBER_DIGITS = 300


def _number(digits: str) -> int:
    """Return a number; 0 if it has more digits than any field's number."""
    return int(digits) if len(digits) <= _NUMBER_DIGITS else 0


class ServerSentEvents:
    r"""Framing of server-sent events (WHATWG HTML, section 9.2).

    Lines end in CR, LF or CRLF; an empty line ends an event; several `data` lines are joined with LF. A byte
    order mark at the start is skipped.
    """

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._tail = bytearray()
        """The line that is not complete yet."""
        self._searched = 0
        """Bytes of it that have no line end."""
        self._data: list[bytes] = []
        self._bytes = 0
        self._event = ""
        self._is_first = True
        self._skips_line = False

    def feed(self, data: bytes) -> Iterator[WireMessage]:
        """Yield the messages that these bytes complete."""
        self._tail += data
        start = 0
        while (found := _EOL.search(self._tail, max(start, self._searched))) is not None:
            if found.group() == b"\r" and found.end() == len(self._tail):
                break  # it may be the first half of a CRLF
            if self._skips_line:
                self._skips_line = False
            elif found.start() - start > MESSAGE_BYTES:
                self._forget_long_message()
            else:
                yield from self._read_line(bytes(self._tail[start : found.start()]))
            start = found.end()
        del self._tail[:start]
        if len(self._tail) - self._tail.endswith(b"\r") > MESSAGE_BYTES:
            self._forget_long_message()
            del self._tail[:-1]  # its last byte may be a CR
            self._skips_line = True
        self._searched = len(self._tail) - self._tail.endswith(b"\r")

    def end(self) -> list[WireMessage]:
        """Return the last event if its empty line is missing."""
        line = b"" if self._skips_line else bytes(self._tail).rstrip(b"\r")
        self._tail.clear()
        messages = self._read_line(line) if line else []
        return messages + self._read_line(b"")

    def _read_line(self, line: bytes) -> list[WireMessage]:
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(BOM)
        if not line:
            data, event = b"\n".join(self._data), self._event
            self._data, self._bytes, self._event = [], 0, ""
            return parse(data, self._losses, event)
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._bytes += len(value) + 1  # the LF after it
            if self._bytes > MESSAGE_BYTES:
                self._forget_long_message()
            else:
                self._data.append(value)
        elif field == b"event":
            self._event = value[:256].decode(errors="replace")
        return []

    def _forget_long_message(self) -> None:
        self._losses.lose("message of more than 8 MiB")
        self._data, self._bytes = [], 0


_EOL = re.compile(rb"\r\n|\r|\n")


_DONE_REST = b"DONE]"


class JsonValues:
    """Framing of JSON values: one per line, in an array, or one for the whole body.

    Each object counts as a message, at the top or directly in a top-level array. So bodies with one object,
    with one object per line, and with an array of objects need no distinction. `[DONE]` between objects is
    a message too.
    """

    _OUTSIDE = re.compile(rb"[{}\[]")
    _INSIDE = re.compile(rb"""(?:[^"{}]++|"(?:[^"\\]++|\\[\s\S])*+")*+(["{}])""")
    """A brace after complete strings, or the beginning of a string whose end is yet to come."""
    _IN_STRING = re.compile(rb'["\\]')

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._buffer = bytearray()
        self._position = 0
        """Position in the buffer from which to go on."""
        self._start: int | None = None
        """Position of the current object; None between objects."""
        self._depth = 0
        self._in_string = False
        self._is_too_long = False

    def feed(self, data: bytes) -> Iterator[WireMessage]:
        """Yield the messages that these bytes complete."""
        self._buffer += data
        while (found := self._next()) is not None:
            if found == b"[":
                yield WireMessage(DONE)
            elif found == b"{":
                if self._start is None:
                    self._start, self._depth = self._position - 1, 0
                self._depth += 1
            elif found == b"}" and self._start is not None:
                self._depth -= 1
                if self._depth == 0:
                    yield from self._complete()
        self._forget_read()

    def end(self) -> list[WireMessage]:
        """Return nothing: an object without its end is no message."""
        if self._start is not None:
            self._losses.lose("message that breaks off")
        return []

    def _next(self) -> bytes | None:
        """Return the next brace outside of strings, or `[` for `[DONE]`; None if more bytes are needed."""
        while not self._in_string or self._skip_string():
            if self._start is None:  # between objects, a quote means nothing
                found = self._OUTSIDE.search(self._buffer, self._position)
            else:
                found = self._INSIDE.match(self._buffer, self._position)
            if found is None:
                self._position = len(self._buffer)
                return None
            self._position = found.end()
            token = bytes(self._buffer[self._position - 1 : self._position])
            if token in b"{}":
                return token
            if token == b'"':
                self._in_string = True
            else:
                rest = bytes(self._buffer[self._position : self._position + len(_DONE_REST)])
                if rest == _DONE_REST:
                    return token
                if _DONE_REST.startswith(rest):
                    self._position = found.start()
                    return None
        return None

    def _skip_string(self) -> bool:
        """Go to the end of the current string; return False if it is not there yet."""
        while (found := self._IN_STRING.search(self._buffer, self._position)) is not None:
            if found.group() == b'"':
                self._position, self._in_string = found.end(), False
                return True
            if found.end() == len(self._buffer):  # what the backslash escapes is yet to come
                self._position = found.start()
                return False
            self._position = found.end() + 1
        self._position = len(self._buffer)
        return False

    def _complete(self) -> list[WireMessage]:
        start, self._start = self._start, None
        if self._is_too_long or self._position - (start or 0) > MESSAGE_BYTES:
            self._is_too_long = False
            self._losses.lose("message of more than 8 MiB")
            return []
        return parse(bytes(self._buffer[start : self._position]), self._losses)

    def _forget_read(self) -> None:
        """Remove from the buffer what is no longer needed."""
        if self._start is None:
            done = self._position
        elif self._is_too_long or len(self._buffer) - self._start > MESSAGE_BYTES:
            self._is_too_long, self._start, done = True, 0, self._position
        else:
            done, self._start = self._start, 0
        del self._buffer[:done]
        self._position -= done


_PRELUDE = 12
_CHECKSUM = 4
_STRING_HEADER = 7
_HEADER_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; the types 6 and 7 have a length before the value."""


class EventStreamFrames:
    """Framing of AWS event streams (application/vnd.amazon.eventstream), with their checksums checked.

    The name of a message's event is its header `:event-type`, or `:exception-type` after `!`.
    """

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[WireMessage]:
        """Yield the messages that these bytes complete.

        Raises:
            BodyError: a frame's prelude is damaged, so that the next frame cannot be found.
        """
        self._buffer += data
        while len(self._buffer) >= _PRELUDE:
            size = int.from_bytes(self._buffer[:4])
            headers_size = int.from_bytes(self._buffer[4:8])
            if zlib.crc32(self._buffer[:8]) != int.from_bytes(self._buffer[8:12]):
                raise BodyError("the prelude of an event-stream frame does not match its checksum")
            if not _PRELUDE + headers_size + _CHECKSUM <= size <= MESSAGE_BYTES * 2:
                raise BodyError(f"an event-stream frame says that it has {size} bytes")
            if len(self._buffer) < size:
                break
            frame = bytes(self._buffer[:size])
            del self._buffer[:size]
            yield from self._read(frame, headers_size)

    def end(self) -> list[WireMessage]:
        """Return nothing: a frame without its end is no message."""
        if self._buffer:
            self._losses.lose("frame that breaks off")
        return []

    def _read(self, frame: bytes, headers_size: int) -> list[WireMessage]:
        if zlib.crc32(frame[:-_CHECKSUM]) != int.from_bytes(frame[-_CHECKSUM:]):
            self._losses.lose("frame that does not match its checksum")
            return []
        headers = headers_of(frame[_PRELUDE : _PRELUDE + headers_size])
        exception = headers.get(":exception-type") or headers.get(":error-code")
        event = f"!{exception}" if exception else headers.get(":event-type", "")
        payload = frame[_PRELUDE + headers_size : -_CHECKSUM]
        found = parse(payload, self._losses, event)
        if not found and exception:
            return [WireMessage({"message": headers.get(":error-message", "")}, event)]
        return found


def headers_of(data: bytes) -> dict[str, str]:
    """Return the headers whose values are strings; stop at the first one that is damaged."""
    headers: dict[str, str] = {}
    position = 0
    while position < len(data):
        name_end = position + 1 + data[position]
        name = data[position + 1 : name_end].decode(errors="replace")
        if name_end >= len(data):
            break
        kind, position = data[name_end], name_end + 1
        if kind in _HEADER_SIZES:
            position += _HEADER_SIZES[kind]
            continue
        if kind > _STRING_HEADER:
            break
        end = position + 2 + int.from_bytes(data[position : position + 2])
        if kind == _STRING_HEADER:
            headers[name] = data[position + 2 : end].decode(errors="replace")
        position = end
    return headers
