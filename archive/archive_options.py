"""The options that the commands of the archive share, and the archive that they open."""

from __future__ import annotations

import getpass
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive.archive_repository import ArchiveRepository, RecordSubject
    from archive.archive_settings import ArchiveSettings
    from archive.database import Database


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time, like 2026-11-30 or 2026-11-30T12:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Who = Annotated[
    str | None,
    typer.Option("--who", metavar="NAME", help="Who looks or acts.", show_default="the user of this system"),
]
Family = Annotated[str | None, typer.Option(metavar="NAME", help="Only this: text, alert, delivery.")]
Kind = Annotated[str | None, typer.Option(metavar="KIND", help="Only this kind of text.")]
Tenant = Annotated[str | None, typer.Option(metavar="TENANT", help="Those of this tenant.")]
Model = Annotated[str | None, typer.Option(metavar="MODEL", help="Those of this model.")]
Response = Annotated[str | None, typer.Option("--response", metavar="ID", help="Those of this response.")]
Safety = Annotated[
    str | None, typer.Option("--safety-identifier", metavar="ID", help="Those of this person.")
]
Reference = Annotated[str | None, typer.Option(metavar="REFERENCE", help="Those with this reference.")]
Since = Annotated[
    datetime | None,
    typer.Option(metavar="TIME", parser=_time, help="Those of this time or later.", show_default=False),
]
Until = Annotated[
    datetime | None,
    typer.Option(metavar="TIME", parser=_time, help="Those from before this time.", show_default=False),
]


@contextmanager
def opened_database() -> Iterator[tuple[ArchiveSettings, Database]]:
    """Open the archive's database; yield the settings, too.

    Raises:
        CommandError: it is away, or does not exist.
        SettingsError: the settings are wrong, or its tables are those of another version.
    """
    from archive.archive_settings import ArchiveSettings
    from archive.archive_url import database_of
    from archive.migrating import check
    from service.cli.command_errors import CommandError

    settings = ArchiveSettings.read()
    database = database_of(settings)
    if settings.archive_file is not None and not settings.archive_file.exists():
        raise CommandError(f"there is no archive at {settings.archive_file}; DELTALOOM_ARCHIVE_URL names it")
    with closing_database(database):
        check(database)
        yield settings, database


@contextmanager
def closing_database(database: Database) -> Iterator[None]:
    """Close a database at the end of the block, and raise its errors as those of a command.

    Raises:
        CommandError: it is away.
        SettingsError: its tables are those of another version.
    """
    from archive.archive_repository import ArchiveUnavailableError, SchemaError
    from service.cli.command_errors import CommandError
    from service.settings import SettingsError

    try:
        yield
    except SchemaError as error:
        raise SettingsError(str(error)) from None
    except ArchiveUnavailableError as error:
        raise CommandError(f"the archive's database cannot be used: {error}") from None
    finally:
        database.close()


@contextmanager
def opened_archive() -> Iterator[ArchiveRepository]:
    """Open the archive of the settings; it raises the errors of `opened_database`."""
    from archive.sql_archive import SqlArchive

    with opened_database() as (_, database):
        yield SqlArchive(database)


def name_of(who: str | None) -> str:
    """Return who looks or acts."""
    return who or getpass.getuser()


def subject_of(
    response: str | None, tenant: str | None, safety_identifier: str | None, reference: str | None
) -> RecordSubject:
    """Return the one subject that was given."""
    from archive.archive_repository import RecordSubject

    given = {
        "response_id": response,
        "tenant": tenant,
        "safety_identifier": safety_identifier,
        "reference": reference,
    }
    subjects = [RecordSubject(name, value) for name, value in given.items() if value]
    if len(subjects) != 1:
        raise typer.BadParameter("give one of --response, --tenant, --safety-identifier and --reference")
    return subjects[0]
