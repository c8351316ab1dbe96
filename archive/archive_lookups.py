"""`deltaloom archive search`, `show` and `export`, `hold`, `release` and `holds`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archive.archive_options import (
    Family,
    Json,
    Kind,
    Model,
    Reference,
    Response,
    Safety,
    Since,
    Tenant,
    Until,
    Who,
    name_of,
    opened_archive,
    subject_of,
)
from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rich.console import Console

    from archive.archive_repository import Archived, Filter

SEARCH_EXAMPLES = examples(
    "deltaloom archive search cannot help", "deltaloom archive search --part explos --kind refusal --json"
)
SHOW_EXAMPLES = examples("deltaloom archive show resp_42", "deltaloom archive show chatcmpl-9 --json")
EXPORT_EXAMPLES = examples(
    "deltaloom archive export --since 2026-11-01 --tenant acme > november.jsonl",
    "deltaloom archive export --after 81234 >> november.jsonl",
)
HOLD_EXAMPLES = examples("deltaloom archive hold --tenant acme --why 'case 7'")
RELEASE_EXAMPLES = examples("deltaloom archive release 3")
HOLDS_EXAMPLES = examples("deltaloom archive holds")


def search(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="WORD…", help="Words that texts have.", show_default=False)
    ] = None,
    part: Annotated[str, typer.Option(metavar="STRING", help="String that texts have.")] = "",
    family: Family = None,
    kind: Kind = None,
    tenant: Tenant = None,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Show at most N.")] = 20,
    json: Json = False,
    who: Who = None,
) -> None:
    """Search the archived texts, the latest ones first. The archive records who searched, not for what."""
    where = where_of(family=family, kind=kind, tenant=tenant, model=model, since=since, until=until)
    print_found(search_archive(" ".join(words or ()), part, where, limit, who), as_json=json)


def search_archive(words: str, part: str, where: Filter, limit: int, who: str | None) -> list[Archived]:
    """Return the latest archived records with these words, this part and this filter."""
    with opened_archive() as archive:
        found = archive.search(words, part, where, limit=limit)
        archive.add_look(name_of(who), f"search {_in_words(where)}".strip(), len(found))
    return found


def show(
    of: Annotated[
        str,
        typer.Argument(
            metavar="RESPONSE_ID|ITEM_ID|PROVIDER_ID", help="Id of a response.", show_default=False
        ),
    ],
    json: Json = False,
    who: Who = None,
) -> None:
    """Show what is archived of a response. The archive records who looked."""
    from service.cli.command_errors import CommandError

    with opened_archive() as archive:
        found = archive.of_response(of)
        archive.add_look(name_of(who), "show", len(found))
    if not found:
        raise CommandError(f"nothing of {of} is archived")
    print_found(found, as_json=json)


def export(
    after: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Number of the last record of an earlier export.")
    ] = 0,
    family: Family = None,
    kind: Kind = None,
    tenant: Tenant = None,
    model: Model = None,
    response: Response = None,
    safety_identifier: Safety = None,
    reference: Reference = None,
    since: Since = None,
    until: Until = None,
    who: Who = None,
) -> None:
    """Print records as JSON lines, in the order in which they were archived.

    Each line has the record's number: to go on after an export that ended early, or to get what came since,
    pass the last one to --after. The archive records who exported.
    """
    where = where_of(
        family=family,
        kind=kind,
        tenant=tenant,
        model=model,
        response_id=response,
        safety_identifier=safety_identifier,
        reference=reference,
        since=since,
        until=until,
    )
    count = 0
    with opened_archive() as archive:
        try:
            while page := archive.page(where, after):
                for each in page:
                    _print_json(each)
                count, after = count + len(page), page[-1].number or 0
        finally:
            archive.add_look(name_of(who), f"export {_in_words(where)}".strip(), count)


def hold(
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason.", show_default=False)],
    response: Response = None,
    tenant: Tenant = None,
    safety_identifier: Safety = None,
    reference: Reference = None,
    who: Who = None,
) -> None:
    """Keep records beyond their retention and through erasures, also those that come later."""
    subject = subject_of(response, tenant, safety_identifier, reference)
    with opened_archive() as archive:
        held = archive.hold(subject, name_of(who), why)
    typer.echo(f"hold {held.number}; `deltaloom archive release {held.number}` ends it")


def release(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Number of the hold.", show_default=False)],
    who: Who = None,
) -> None:
    """End a hold."""
    from service.cli.command_errors import CommandError

    with opened_archive() as archive:
        if not archive.release(number, name_of(who)):
            raise CommandError(f"there is no hold {number}; `deltaloom archive holds` lists them")
    typer.echo("released")


def holds() -> None:
    """List all holds, oldest first."""
    from service.cli.output import console, facts, labelled

    with opened_archive() as archive:
        found = archive.holds()
    for each in found:
        name = each.subject.name.replace("_", " ")
        console().print(
            facts(
                (each.number, labelled(name, each.subject.value), f"{each.at:%Y-%m-%d}", each.who, each.why)
            )
        )
    if not found:
        typer.echo("no holds")


def where_of(**given: str | datetime | None) -> Filter:
    """Return a filter with the given options."""
    from archive.archive_repository import Filter

    return Filter(**given)  # type: ignore[arg-type] # the options have the types of its fields


def _in_words(where: Filter) -> str:
    """Return the names of a filter's conditions; their values may identify a person who is erased later."""
    return " ".join(
        f"--{name}".replace("_", "-") for name, value in where._asdict().items() if value is not None
    )


def print_found(found: Sequence[Archived], *, as_json: bool) -> None:
    """Print records for people, or as JSON lines."""
    from service.cli.output import console, note

    target = console()
    for each in found:
        if as_json:
            _print_json(each)
        else:
            _print_record(target, each)
    if not found:
        note("nothing is found")


def _print_json(archived: Archived) -> None:
    """Print a record in a line: its number and family, and the message as it was written."""
    import json

    from service.cli.output import write_json

    body = archived.record.body.decode("utf-8", "replace")
    if "\n" in body or "\r" in body:
        body = json.dumps(json.loads(body), ensure_ascii=False)
    number = "null" if archived.number is None else archived.number
    write_json(f'{{"number":{number},"family":"{archived.record.family}","message":{body}}}')


def _print_record(target: Console, archived: Archived) -> None:
    """Print a record for a person."""
    from service.cli.output import facts, labelled, paragraph

    record = archived.record
    target.print(
        facts(
            (
                f"{record.at:%Y-%m-%d %H:%M:%S}",
                record.family if record.family != "text" else record.kind,
                record.type if record.family == "alert" else None,
                record.response_id,
                record.model,
                *(
                    labelled(name.replace("_", " "), getattr(record, name))
                    for name in ("tenant", "safety_identifier", "reference")
                ),
            )
        )
    )
    target.print(paragraph(target, record.words))
