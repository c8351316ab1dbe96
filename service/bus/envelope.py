"""What a producer wrote into an entry, whichever way it did: the body and the headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faststream.redis.parser import BinaryMessageFormatV1

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
    if not data.startswith(BinaryMessageFormatV1.IDENTITY_HEADER):
        return data, {}
    return BinaryMessageFormatV1.parse(data)
