"""What a producer wrote into an entry, whichever way it did: the body and the headers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from faststream.redis.parser import BinaryMessageFormatV1
from faststream.redis.parser.binary import FastStreamMessageVersion

from handlers.core.identity import EntryId
from service.pipeline.decode import UnreadableError
from service.ports.storage import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_HEADERS = 1000
"""Headers of one envelope."""

MOST_HEADER_BYTES = 64 * 1024
"""Bytes of all of them, with their names. The longest context that the contract takes has 21 kB."""


def open_entry(entry_id: bytes, fields: Mapping[bytes, bytes], deliveries: int = 1) -> Entry:
    """Read an entry: `event` first, else FastStream's `__data__`, else flat fields (no body).

    Raises:
        UnreadableError: its envelope has too many headers.
    """
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
    """Return the headers: a count, then names and values, each with its length before it.

    FastStream writes a length in characters and reads it in bytes, so that it cannot read its own
    headers beyond ASCII. Here a length is taken for bytes where that comes out even, else for characters.

    Raises:
        UnreadableError: there are too many headers, or too many bytes of them.
    """
    count = _COUNT.unpack_from(data)[0]
    if count > MOST_HEADERS or len(data) > MOST_HEADER_BYTES:
        raise UnreadableError(
            "oversized",
            f"the envelope has {count} headers in {len(data)} bytes; "
            f"at most {MOST_HEADERS} headers in {MOST_HEADER_BYTES} bytes",
        )
    strings = data[_COUNT.size :]
    parts = _counted_in_bytes(strings, 2 * count) or _counted_in_characters(strings, 2 * count)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _counted_in_bytes(data: bytes, count: int) -> list[str]:
    """Return `count` strings that fill `data`, their lengths in bytes; none if they do not fill it."""
    strings, at = [], 0
    try:
        for _ in range(count):
            begin = at + _COUNT.size
            at = begin + _COUNT.unpack_from(data, at)[0]
            strings.append(data[begin:at].decode())
    except (struct.error, UnicodeDecodeError):
        return []
    return strings if at == len(data) else []


def _counted_in_characters(data: bytes, count: int) -> list[str]:
    """Return the same, with the lengths in characters."""
    strings, at = [], 0
    try:
        for _ in range(count):
            (length,) = _COUNT.unpack_from(data, at)
            at += _COUNT.size
            # A character has four bytes at most, so no string is looked at beyond its own end by far.
            string = data[at : at + 4 * length].decode("utf-8", "replace")[:length]
            strings.append(string)
            at += len(string.encode())
    except struct.error:
        return []
    return strings if at == len(data) else []
