"""Records of the archive, made of the entries of output streams.

A record keeps the JSON of its message as it was written, and the few values by which it is found.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SEARCHABLE = 100_000
"""Characters of a text that can be searched. PostgreSQL refuses to index the words of a far longer one."""

MAX_BODY = 64 * 1024 * 1024
"""Maximum bytes of a message."""

MAX_UNREADABLE = 64 * 1024
"""Maximum bytes that are kept of an entry that cannot be read."""

MAX_VALUE = 1024
"""Maximum characters of a value by which a record is found, as in docs/contract.md."""

_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=1)
_TIMES = {"text": ("finished_at",), "alert": ("raised_at",), "delivery": ("delivered_at", "raised_at")}


class Record(NamedTuple):
    """A message, and the values by which it is found."""

    source: str
    """Prefix of the streams of the program that wrote it: ids are unique only within a prefix."""
    id: str
    family: str
    """`text`, `alert` or `delivery`."""
    type: str
    kind: str | None
    response_id: str | None
    item_id: str | None
    upstream_response_id: str | None
    tenant: str | None
    model: str | None
    safety_identifier: str | None
    reference: str | None
    at: datetime
    """Time of the message: when a text was finished, an alert raised, a delivery confirmed or given up."""
    words: str
    """Beginning of its text, for the search."""
    body: bytes
    """JSON of the message, as it was written."""
    digest: bytes
    """SHA-256 of the message's values."""

    @property
    def key(self) -> tuple[str, str]:
        """Source and id, which the archive has at most once."""
        return self.source, self.id


class EntryPlace(NamedTuple):
    """The place of an entry in Redis."""

    stream: str
    entry_id: str


class UnreadableEntry(NamedTuple):
    """An entry that is not a message."""

    origin: EntryPlace
    reason: str
    """Problem, without words of the entry."""
    response_id: str | None
    """Response that the entry's plain field names, so that it can be erased."""
    body: bytes
    """Beginning of its fields, as JSON."""


class NotAMessageError(ValueError):
    """The entry is not a message; the text says why, without words of the entry."""


def record_of(family: str, source: str, fields: Sequence[bytes], now: datetime) -> Record:
    """Return the record of an entry.

    Args:
        family: family of the stream.
        source: prefix of the stream, for a message without a source.
        fields: names and values of the entry, alternating.
        now: the present time; a message of the future, or from before 2020, gets it.

    Raises:
        NotAMessageError: the entry has no JSON object with an id.
    """
    body = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"__data__")
    if body is None:
        raise NotAMessageError("it has no field __data__")
    if len(body) > MAX_BODY:
        raise NotAMessageError(f"it has more than {MAX_BODY} bytes")
    message = _object_in(body)
    message_id = _value(message, "id")
    if message_id is None:
        raise NotAMessageError("it has no id, or one that is empty or too long")
    return Record(
        source=_value(message, "source") or storable(source),
        id=message_id,
        family=family,
        type=_value(message, "type") or "",
        kind=_value(message, "kind"),
        response_id=_value(message, "response_id"),
        item_id=_value(message, "item_id"),
        upstream_response_id=_value(message, "upstream_response_id"),
        tenant=_value(message, "tenant"),
        model=_value(message, "model"),
        safety_identifier=_value(message, "safety_identifier"),
        reference=_value(message, "reference"),
        at=_time(message, family, now),
        words=_words(message),
        body=body,
        digest=_digest(message),
    )


def unreadable(origin: EntryPlace, fields: Sequence[bytes], reason: str) -> UnreadableEntry:
    """Return what is kept of an entry that is not a message."""
    found: dict[str, str] = {}
    room = MAX_UNREADABLE
    for name, value in zip(fields[::2], fields[1::2], strict=False):
        found[name[:room].decode("utf-8", "backslashreplace")] = value[:room].decode(
            "utf-8", "backslashreplace"
        )
        room = max(0, room - len(name) - len(value))
    return UnreadableEntry(
        origin, reason, _value(found, "response_id"), json.dumps(found, ensure_ascii=True).encode()
    )


def storable(text: str) -> str:
    """Return a text that every database can store: without NUL and unpaired surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAMessageError("it is not JSON") from None
    if not isinstance(message, dict):
        raise NotAMessageError("it is not a JSON object")
    return message


def _value(message: Mapping[str, Any], name: str) -> str | None:
    """Return a value by which records are found; None if it is missing, empty, too long or not a string."""
    value = message.get(name)
    return storable(value) if isinstance(value, str) and 0 < len(value) <= MAX_VALUE else None


def _words(message: Mapping[str, Any]) -> str:
    """Return the texts of a message that a person would search."""
    texts = (message.get("text"), message.get("provider_explanation"))
    return storable("\n".join(text for text in texts if isinstance(text, str) and text)[:SEARCHABLE])


def _time(message: Mapping[str, Any], family: str, now: datetime) -> datetime:
    """Return the time of a message; `now` if it has none, or one that is out of range.

    Otherwise a wrong time would create a partition of its own.
    """
    for name in _TIMES[family]:
        written = message.get(name)
        if isinstance(written, str):
            try:
                at = datetime.fromisoformat(written)
            except ValueError:
                continue
            if at.tzinfo is not None and _EARLIEST <= at <= now + _AHEAD:
                return at.astimezone(UTC)
    return now


def _digest(message: Mapping[str, Any]) -> bytes:
    """Return a digest that does not depend on white space and on the order of fields."""
    written = json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(written.encode()).digest()
