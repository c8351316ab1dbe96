"""Apply the retention at regular times, on a connection of its own: an archiver goes on meanwhile."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from archive.archive_repository import ArchiveUnavailableError
from archive.sql_archive import SqlArchive
from service import logs
from service.cancelling import done_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archive.archive_repository import Retention
    from archive.database import Database
    from archive.database_thread import DatabaseThread


class Retaining:
    """The rounds of the retention.

    Args:
        database: a connection that nobody else uses.
        thread: thread in which it is used.
        rules: the rules; none to keep everything.
        interval: seconds between two rounds.
    """

    def __init__(
        self, database: Database, thread: DatabaseThread, rules: Sequence[Retention], interval: float
    ) -> None:
        self._archive = SqlArchive(database)
        self._thread = thread
        self._rules = rules
        self._interval = interval

    async def run(self) -> NoReturn:
        """Do a round every `interval` seconds, for ever."""
        while True:
            await self._round()
            await asyncio.sleep(self._interval)

    async def _round(self) -> None:
        """Delete what is too old; an error is logged, and the next round does what this one has left."""
        try:
            deleted = await self._thread.call(partial(self._archive.retain, self._rules))
            held = await self._thread.call(partial(self._archive.held_beyond, self._rules))
        except ArchiveUnavailableError as error:
            logs.logger().warning("retention skipped, archive unavailable", error=str(error))
        except Exception:  # noqa: BLE001 - the next round does what this one has left
            logs.logger().exception("retention failed")
        else:
            if any(deleted.values()):
                logs.logger().info("records deleted by age", **deleted)
            for hold, count in held.items():
                logs.logger().info("records held beyond their retention", hold=hold.number, records=count)

    async def close(self) -> None:
        """Close the connection, unless it hangs."""
        await done_within(1, self._thread.call(self._archive.close))
        self._thread.stop()
