"""`deltaloom search`: search the texts in Redis and, if one is configured, in the archive."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from archive.archive_lookups import print_found, search_archive, where_of
from archive.archive_options import Json, Kind, Model, Since, Tenant, Until, Who
from service.cli.help_text import examples

if TYPE_CHECKING:
    from archive.archive_repository import Archived, Filter
    from archive.record import Record

EXAMPLES = examples("deltaloom search cannot help", "deltaloom search --part explos --tenant acme --json")

LOOKED_THROUGH = 10_000
"""Maximum texts of a partition in Redis that are searched, newest first: it has no index."""


def run(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="WORD…", help="Words that texts have.", show_default=False)
    ] = None,
    part: Annotated[str, typer.Option(metavar="STRING", help="String that texts have.")] = "",
    kind: Kind = None,
    tenant: Tenant = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Show at most N.")] = 20,
    json: Json = False,
    who: Who = None,
) -> None:
    """Search the finished texts, the latest ones first: the newest ones in Redis, and all in the archive.

    DELTALOOM_ARCHIVE_URL names the archive, which records who searched, not for what.
    """
    from service.cli.archived import archive_is_configured

    where = where_of(family="text", kind=kind, tenant=tenant, model=model, since=since, until=until)
    archived: list[Archived] = []
    if archive_is_configured():
        archived = search_archive(" ".join(words or ()), part, where, limit, who)
    known = {each.record.key for each in archived}
    recent = asyncio.run(_recent(_Wanted(words or [], part, where)))
    found = [each for each in recent if each.record.key not in known] + archived
    found.sort(key=lambda each: each.record.at, reverse=True)
    print_found(found[:limit], as_json=json)


class _Wanted:
    """The conditions of a search, for texts that no index has."""

    def __init__(self, words: list[str], part: str, where: Filter) -> None:
        self._words = {word for each in words for word in _words_in(each)}
        self._part = part.lower()
        self._where = where

    def fits(self, record: Record) -> bool:
        """Return whether a record fulfils them."""
        where = self._where
        return (
            all(getattr(record, name) == value for name, value in self._equal())
            and (where.since is None or record.at >= where.since)
            and (where.until is None or record.at < where.until)
            and self._part in record.words.lower()
            and self._words <= set(_words_in(record.words))
        )

    def _equal(self) -> list[tuple[str, str]]:
        given = self._where._asdict()
        return [(name, value) for name, value in given.items() if value and name not in {"since", "until"}]


def _words_in(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


async def _recent(wanted: _Wanted) -> list[Archived]:
    """Return the texts in Redis, latest first."""
    from archive.archive_repository import Archived
    from archive.record import NotAMessageError, record_of
    from service.cli.connect import connect, read_settings
    from service.storage.pages import backwards

    settings, found = read_settings(), list[Archived]()
    now = datetime.now(UTC)
    async with connect(settings) as client:
        for names in settings.names.all:
            looked_through = 0
            async for _, fields in backwards(client, names.assembled):
                looked_through += 1
                if looked_through > LOOKED_THROUGH:
                    break
                flat = [part for pair in fields.items() for part in pair]
                try:
                    record = record_of("text", settings.prefix, flat, now)
                except NotAMessageError:
                    continue
                if wanted.fits(record):
                    found.append(Archived(None, record))
    return sorted(found, key=lambda each: each.record.at, reverse=True)
