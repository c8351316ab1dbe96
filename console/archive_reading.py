"""Look into the archive from the console's loop."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from archive.archive_repository import ArchiveUnavailableError, SchemaError
from archive.archive_url import database_of
from archive.database_thread import DatabaseThread
from archive.migrating import check
from archive.sql_archive import SqlArchive
from console.console_errors import ConsoleError
from service import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from archive.archive_repository import Archived, ArchiveLook, Filter
    from console.console_settings import ConsoleSettings

T = TypeVar("T")


class ArchiveReader:
    """The archive of the settings, opened at the first look.

    Args:
        settings: names the database.

    Raises:
        SettingsError: the program has no library for the database.
    """

    def __init__(self, settings: ConsoleSettings) -> None:
        self._file = settings.archive_file
        self._database = database_of(settings)
        self._thread = DatabaseThread()
        self._archive: SqlArchive | None = None

    async def search(self, words: str, where: Filter, before: int | None, limit: int) -> list[Archived]:
        """Return the records whose texts have all these words, the latest archived ones first."""
        return await self._call(lambda archive: archive.search(words, "", where, before, limit))

    async def of_response(self, response_id: str) -> list[Archived]:
        """Return the records of a response, oldest first."""
        return await self._call(lambda archive: archive.of_response(response_id))

    async def add_look(self, who: str, what: str, found: int) -> None:
        """Record that somebody looked."""
        await self._call(lambda archive: archive.add_look(who, what, found))

    async def looks(self, limit: int) -> list[ArchiveLook]:
        """Return the latest looks, latest first."""
        return await self._call(lambda archive: archive.looks(limit))

    async def close(self) -> None:
        """Close the connection."""
        with suppress(ArchiveUnavailableError):
            await self._thread.call(self._database.close)
        self._thread.stop()

    async def _call(self, step: Callable[[Any], T]) -> T:
        """Call the archive in its thread.

        Raises:
            ConsoleError: it is away, or of another version.
        """

        def run() -> T:
            if self._archive is None:
                if self._file is not None and not self._file.exists():
                    raise SchemaError("there is no archive in this file yet")
                check(self._database)
                self._archive = SqlArchive(self._database)
            return step(self._archive)

        try:
            return await self._thread.call(run)
        except (ArchiveUnavailableError, SchemaError) as error:
            logs.logger().warning("archive not read", error=str(error))
            raise ConsoleError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the archive does not answer the console: see its log"
            ) from None
