"""`deltaloom archive erase` and `verify`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archive.archive_options import (
    Reference,
    Response,
    Safety,
    Tenant,
    Who,
    name_of,
    opened_database,
    subject_of,
)
from service.cli.help_text import examples

if TYPE_CHECKING:
    from archive.archive_repository import RecordSubject
    from archive.archive_settings import ArchiveSettings
    from archive.database import Database

ERASE_EXAMPLES = examples(
    "deltaloom archive erase --safety-identifier user-7 > certificate.json",
    "deltaloom archive erase --response resp_42 --archive-only",
)
VERIFY_EXAMPLES = examples("deltaloom archive verify certificate.json")


def erase(
    response: Response = None,
    tenant: Tenant = None,
    safety_identifier: Safety = None,
    reference: Reference = None,
    archive_only: Annotated[bool, typer.Option("--archive-only", help="Leave Redis alone.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    who: Who = None,
) -> None:
    """Erase a subject from the archive and from Redis, but what is held, and print a certificate as JSON.

    The certificate has the numbers of what was erased by place, what a hold keeps, and the places that may
    still have something. It ends with exit code 1 if a hold keeps something, bytes of erased rows remain in
    the database, or a response has not ended: erase again after its end. It needs a Redis user that may SCAN,
    such as `default`.
    """
    import json

    from service.cli.output import note, plural, write_json

    subject = subject_of(response, tenant, safety_identifier, reference)
    if not yes:
        # stdout has the certificate alone
        typer.confirm("Erase all of it for good?", abort=True, err=True)
    with opened_database() as (settings, database):
        certificate = asyncio.run(
            _erase(settings, database, subject, name_of(who), archive_only=archive_only)
        )
    write_json(json.dumps(certificate, ensure_ascii=False))
    for hold in certificate["held"]:
        note(f"hold {hold['hold']} of {hold['who']} keeps {plural(hold['records'], 'record')}: {hold['why']}")
    if certificate["held_in_redis"]:
        places = plural(certificate["held_in_redis"], "place")
        note(f"holds keep {places} in Redis: `deltaloom archive holds` lists the holds")
    if certificate["still_open"]:
        note(f"{plural(len(certificate['still_open']), 'response')} still open: erase again after the end")
    for each in certificate["remains"]:
        note(f"{each['place']}: not removed {each['until']}")
    if any(certificate[name] for name in ("held", "held_in_redis", "still_open", "remains")):
        raise typer.Exit(1)


async def _erase(
    settings: ArchiveSettings, database: Database, subject: RecordSubject, who: str, *, archive_only: bool
) -> dict[str, Any]:
    from archive.certificates import Certificates
    from archive.erasing import erase_everywhere
    from archive.sql_archive import SqlArchive
    from service.cli.connect import connect
    from service.storage.subject_erasure import SubjectErasure

    archive, certificates = SqlArchive(database), Certificates(database)
    if archive_only:
        return await erase_everywhere(subject, who, archive, certificates, settings, None)
    async with connect(settings) as client:
        redis = SubjectErasure(client, settings.names, *subject)
        return await erase_everywhere(subject, who, archive, certificates, settings, redis)


def verify(
    certificate: Annotated[
        Path,
        typer.Argument(
            metavar="CERTIFICATE", help="File with a certificate of `erase`.", show_default=False, exists=True
        ),
    ],
) -> None:
    """Check that a certificate is what the archive has recorded, and that no earlier one was changed."""
    import json

    from archive.certificates import CertificateError, Certificates
    from service.cli.command_errors import CommandError

    try:
        given = json.loads(certificate.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise CommandError(f"{certificate}: it is not JSON") from None
    if not isinstance(given, dict):
        raise CommandError(f"{certificate}: it is no certificate of an erasure")
    with opened_database() as (_, database):
        try:
            count = Certificates(database).verify(given)
        except CertificateError as error:
            raise CommandError(f"{certificate}: {error}") from None
    typer.echo(f"it is certificate {given['chain']['number']} of {count}, and the chain is whole")
