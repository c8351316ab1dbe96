"""Record who looked at what: in a file or in the archive's table, never in Redis."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import OrderedDict
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from console.console_errors import ConsoleError
from service import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from console.access import Visitor
    from console.archive_reading import ArchiveReader

NOBODY_NAMED: Final = "(somebody on this machine)"
"""Name of a visitor without authentication."""

_READ_BACK: Final = 16 * 1024 * 1024
"""Bytes at the end of the file in which marks of former runs are looked for."""

ONE_LOOK_SECONDS: Final = 600.0
"""Seconds within which a page that asks again is the same look: an open page asks every few seconds."""
_REMEMBERED: Final = 10_000

MARKS_READ: Final = 50_000
"""Latest looks in the archive's table in which marks of former runs are looked for."""


def name_of(visitor: Visitor) -> str:
    """Return the name under which a look is recorded."""
    return visitor.name or NOBODY_NAMED


class FormerLook(NamedTuple):
    """A look that an earlier run has recorded."""

    at: datetime
    who: str
    what: str


class Looks:
    """The record of looks.

    Args:
        file: file to which a line is added for each look; None for the archive's table.
        archive: the archive; None without one.
        clock: returns seconds that never go back.
    """

    def __init__(
        self, file: Path | None, archive: ArchiveReader | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file
        self._archive = archive
        self._clock = clock
        self._last: OrderedDict[tuple[str, str], float] = OrderedDict()
        """Times of the recorded looks of pages, by visitor and page, oldest first."""

    @property
    def are_recorded(self) -> bool:
        """True if there is a place for the record."""
        return self._file is not None or self._archive is not None

    async def add(self, visitor: Visitor, what: str, found: int = 1) -> None:
        """Record a look, before its answer is sent.

        Raises:
            ConsoleError: it cannot be recorded, so nothing is shown.
        """
        try:
            if self._file is not None:
                line = {
                    "at": datetime.now(UTC).isoformat(),
                    "who": name_of(visitor),
                    "what": what,
                    "found": found,
                }
                await asyncio.to_thread(_append, self._file, json.dumps(line))
            elif self._archive is not None:
                await self._archive.add_look(name_of(visitor), what, found)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is shown then
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            logs.logger().error("look not recorded, nothing shown", error=reason)
            raise ConsoleError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the console cannot record who looks: see its log"
            ) from None

    async def add_once(self, visitor: Visitor, page: str) -> None:
        """Record the look of a visitor at a page, unless that was recorded in the last ten minutes.

        Raises:
            ConsoleError: it cannot be recorded, so nothing is shown.
        """
        key, now = (name_of(visitor), page), self._clock()
        last = self._last.get(key)
        if last is not None and now - last < ONE_LOOK_SECONDS:
            return
        await self.add(visitor, page)
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    async def of_former_runs(self) -> Sequence[FormerLook]:
        """Return the looks in the file, else the latest ones in the archive's table, oldest first.

        Raises:
            ConsoleError: the archive is away.
        """
        if self._file is not None:
            return await asyncio.to_thread(lambda: [*self._in_file()])
        if self._archive is None:
            return []
        latest = await self._archive.looks(MARKS_READ)
        return [FormerLook(each.at, each.who, each.what) for each in reversed(latest)]

    def _in_file(self) -> Iterator[FormerLook]:
        if self._file is None or not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(max(0, self._file.stat().st_size - _READ_BACK))
            for line in file:
                try:
                    look = json.loads(line)
                    yield FormerLook(datetime.fromisoformat(look["at"]), str(look["who"]), str(look["what"]))
                except (ValueError, TypeError, KeyError):  # a line that was cut, or is of another program
                    continue


def _append(file: Path, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
