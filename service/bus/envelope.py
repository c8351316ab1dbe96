"""Extract the body and headers of an entry, in any of the formats that producers use."""

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

MAX_HEADERS = 1000
"""Maximum number of headers in an envelope."""

MAX_HEADER_BYTES = 64 * 1024
"""Maximum bytes of an envelope's headers, names included. The longest valid context takes 21 kB."""


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
    # Data without the magic number is plain JSON. FastStream's own parser would take JSON with a key `data`
    # for its old envelope.
    magic = BinaryMessageFormatV1.IDENTITY_HEADER
    if not data.startswith(magic):
        return data, {}
    try:
        version, headers_start, body_start = _FRAME.unpack_from(data, len(magic))
        if version == FastStreamMessageVersion.v1.value:
            return data[body_start:], _headers(data[headers_start:body_start])
    except (struct.error, UnicodeDecodeError):
        pass  # truncated: used as a body it is not JSON, and becomes a dead letter
    return data, {}


_FRAME = struct.Struct(">HII")  # version, offset of the headers, offset of the body
_COUNT = struct.Struct(">H")


def _headers(data: bytes) -> dict[str, str]:
    """Return the headers: a count, then names and values, each preceded by its length.

    FastStream writes lengths in characters but reads them in bytes, so it cannot read its own headers if they
    are not ASCII. This function takes lengths as bytes if they fill the data exactly, else as characters.

    Raises:
        UnreadableError: there are too many headers, or too many bytes of them.
    """
    count = _COUNT.unpack_from(data)[0]
    if count > MAX_HEADERS or len(data) > MAX_HEADER_BYTES:
        raise UnreadableError(
            "oversized",
            f"the envelope has {count} headers in {len(data)} bytes; "
            f"at most {MAX_HEADERS} headers in {MAX_HEADER_BYTES} bytes",
        )
    strings = data[_COUNT.size :]
    parts = _counted_in_bytes(strings, 2 * count) or _counted_in_characters(strings, 2 * count)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _counted_in_bytes(data: bytes, count: int) -> list[str]:
    """Return `count` strings with lengths in bytes; an empty list if they do not fill `data` exactly."""
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
    """Return `count` strings with lengths in characters; an empty list if they do not fill `data` exactly."""
    strings, at = [], 0
    try:
        for _ in range(count):
            (length,) = _COUNT.unpack_from(data, at)
            at += _COUNT.size
            # A character has at most four bytes, so decode no more than that of the rest.
            string = data[at : at + 4 * length].decode("utf-8", "replace")[:length]
            strings.append(string)
            at += len(string.encode())
    except struct.error:
        return []
    return strings if at == len(data) else []
