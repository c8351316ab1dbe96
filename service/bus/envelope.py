"""What a producer wrote into an entry, whichever way it did: the body and the headers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from faststream.redis.parser import BinaryMessageFormatV1
from faststream.redis.parser.binary import FastStreamMessageVersion

from handlers.core.identity import EntryId
from service.ports import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping


def open_entry(entry_id: bytes, fields: Mapping[bytes, bytes], deliveries: int = 1) -> Entry:
    """An entry as it is read: `event` first, else FastStream's `__data__`, else flat fields (no body)."""
    body = fields.get(b"event")
    headers: dict[str, str] = {}
    if body is None and b"__data__" in fields:
        body, headers = _open_envelope(fields[b"__data__"])
    return Entry(EntryId.parse(entry_id.decode()), fields, body, headers, deliveries)


def _open_envelope(data: bytes) -> tuple[bytes, dict[str, str]]:
    # Without the magic number it is plain JSON. FastStream's own reader would take that for its old
    # envelope if the event happens to have a key `data`.
    magic = BinaryMessageFormatV1.IDENTITY_HEADER
    if not data.startswith(magic):
        return data, {}
    try:
        version, headers_start, body_start = _FRAME.unpack_from(data, len(magic))
        if version == FastStreamMessageVersion.v1.value:
            return data[body_start:], _headers(data[headers_start:body_start])
    except (struct.error, UnicodeDecodeError):
        pass  # cut off: as a body it is no JSON, and so becomes a dead letter
    return data, {}


_FRAME = struct.Struct(">HII")  # version, where the headers begin, where the body does
_COUNT = struct.Struct(">H")


def _headers(data: bytes) -> dict[str, str]:
    """The headers: a count, then names and values, each with its length before it.

    FastStream writes a length in characters and reads it in bytes, so that it cannot read its own
    headers beyond ASCII. Here a length is taken for bytes where that comes out even, else for characters.
    """
    text = data[_COUNT.size :]
    count = 2 * _COUNT.unpack_from(data)[0]
    parts = _counted(text, count, in_characters=False) or _counted(text, count, in_characters=True)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _counted(data: bytes, count: int, *, in_characters: bool) -> list[str]:
    """`count` strings that fill `data`; none if they do not."""
    strings = []
    try:
        for _ in range(count):
            (length,) = _COUNT.unpack_from(data)
            data = data[_COUNT.size :]
            string = data.decode("utf-8", "replace")[:length] if in_characters else data[:length].decode()
            strings.append(string)
            data = data[len(string.encode()) :]
    except (struct.error, UnicodeDecodeError):
        return []
    return [] if data else strings
