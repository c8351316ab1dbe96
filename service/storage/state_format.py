"""Format notes: hashes in Redis that keep a worker from using state in a format that it cannot read.

Theory of operation:

1. `version` is the format that is written, `min_reader` the oldest format whose readers can read it. Each
   partition has a format note of its own, since each may be on another server.
2. A worker writes the format note if it is missing, and raises a lower version to its own.
3. A worker refuses to start if `min_reader` is above its own format, or if it cannot parse the format note.
4. A worker checks the format notes again once per claim time, those of one server together: a newer worker
   may have raised the format, or the server may have been flushed. v0.1.0 stores format 1 without a note.

(The notes of events, which `handlers.core.effects` defines, have nothing to do with these.)
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple, cast

from redis.exceptions import ResponseError

from service.storage import scripts
from service.storage.client.availability import unavailable_if_away

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis

FORMAT = 1
"""The format that this worker writes; raised when a field or key of the state changes its meaning."""

MIN_READER = 1
"""The oldest format whose readers can read what this worker writes."""

_REMEDY = "upgrade it, or set DELTALOOM_PREFIX to another prefix"
_FIELDS = ("version", "min_reader", "written_by")
_MAX_NAME = 80


class StateFormatError(Exception):
    """The state cannot be read by this worker; the message is one line with the cause and the remedy."""


class FormatNote(NamedTuple):
    """The content of a format note, as some worker wrote it."""

    version: int
    min_reader: int
    written_by: str


@cache
def _written_by() -> str:
    return f"deltaloom-worker {version('deltaloom-worker')}"


class FormatNotes:
    """Writes the format notes of all partitions on one server."""

    def __init__(self, client: Redis) -> None:
        self._script = scripts.Script(client, "state_format")

    async def write(self, keys: Sequence[str]) -> None:
        """Write the format notes missing at these keys, and raise lower ones to this worker's format.

        A note that this worker cannot read stays unchanged; the others are written all the same.

        Raises:
            StateFormatError: this worker cannot read the state of one of the partitions.
        """
        with unavailable_if_away():
            replies = await self._script(keys=keys, args=[FORMAT, MIN_READER, _written_by()])
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, bytes):
                raise _unreadable(key, f"it is a {reply.decode()}, not a hash")
            if reply:
                fields = {n: value for n, value in zip(_FIELDS, reply, strict=True) if value is not None}
                _parsed(key, fields)


class StateFormat:
    """The format note of one partition.

    Args:
        client: client of the server.
        key: key of the format note.
    """

    def __init__(self, client: Redis, key: str) -> None:
        self._client = client
        self._key = key
        self._notes = FormatNotes(client)

    async def write_note(self) -> None:
        """Write the format note if it is missing, or raise a lower one to this worker's format.

        A note that this worker cannot read stays unchanged.

        Raises:
            StateFormatError: this worker cannot read the state of this partition.
        """
        await self._notes.write([self._key])

    async def read(self) -> FormatNote | None:
        """Return the stored format note, or None if there is none; write nothing.

        Raises:
            StateFormatError: a worker of this version cannot read the state of this partition.
        """
        with unavailable_if_away():
            try:
                fields = cast("dict[bytes, bytes]", await self._client.hgetall(self._key))
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                raise _unreadable(self._key, "it is not a hash") from error
        return (
            _parsed(self._key, {name.decode(): value for name, value in fields.items()}) if fields else None
        )


def _parsed(key: str, fields: Mapping[str, bytes]) -> FormatNote:
    """Parse the format note at `key`. The name in `written_by` is cut to `_MAX_NAME` printable characters.

    Raises:
        StateFormatError: the note is invalid, or requires a newer reader than this worker.
    """
    note = {name: fields.get(name, b"").decode(errors="replace") for name in _FIELDS}
    for name in ("version", "min_reader"):
        if not re.fullmatch("[0-9]{1,9}", note[name]):
            raise _unreadable(key, f"{name} is {note[name][:20]!r}, not a small number")
    printable = "".join(c if c.isprintable() else " " for c in note["written_by"])
    written_by = " ".join(printable.split())[:_MAX_NAME] or "an unknown program"
    found = FormatNote(int(note["version"]), int(note["min_reader"]), written_by)
    if found.min_reader > FORMAT:
        raise StateFormatError(
            f"{key}: the state has format {found.version} (written by {found.written_by}), which needs "
            f"a worker that reads format {found.min_reader}; this one reads {FORMAT}: {_REMEDY}"
        )
    return found


def _unreadable(key: str, why: str) -> StateFormatError:
    return StateFormatError(
        f"{key}: this worker, which reads format {FORMAT}, cannot read this note of the state's format "
        f"({why}): {_REMEDY}"
    )
