"""`deltaloom show`: show everything known of a response."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from service.cli.knowledge import Known
    from service.settings import Settings

EXAMPLES = examples(
    "deltaloom show resp_42",
    "deltaloom show msg_7 --json | jq .texts",
    "deltaloom show chatcmpl-9",
)


def run(
    of: Annotated[
        str,
        typer.Argument(
            metavar="RESPONSE_ID|ITEM_ID|PROVIDER_ID",
            help="Id as the producer or the API gave it, or the provider's own id of the response.",
            show_default=False,
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each response.")] = False,
) -> None:
    """Show a response: its finished texts, what is still open, and its context.

    A provider's id may be that of several responses, all of which are shown, with their alerts. If
    DELTALOOM_ARCHIVE_URL names an archive, its texts are shown too, and it records who looked.
    """
    asyncio.run(_show(of, as_json=json))


async def _show(of: str, *, as_json: bool) -> None:
    from service.cli.archived import with_archived
    from service.cli.command_errors import CommandError
    from service.cli.connect import connect, read_settings
    from service.cli.knowledge import Known, known_in
    from service.cli.output import console, note, write_json

    settings = read_settings()
    async with connect(settings) as client:
        found = await known_in(settings.names, client, settings, of)
    found, problem = with_archived(found, of)
    if problem:
        note(f"without the archive: {problem}")
    if not found:
        off = ", ".join(_kinds_not_rebuilt(settings, Known(of)))
        without = off and f" (without {off}; see DELTALOOM_HANDLERS)"
        raise CommandError(
            f"nothing is known of {of}: not published under this id, nothing in it that the enabled handlers "
            f"rebuild{without}, or longer ago than finished texts are kept"
        )
    target = console()
    for number, known in enumerate(found):
        if as_json:
            write_json(known.to_json())
            continue
        if number:
            target.print()
        _print(target, known, ", ".join(_kinds_not_rebuilt(settings, known)))
    if len(found) > 1:
        note(f"{len(found):,} responses have this id of their provider")


def _kinds_not_rebuilt(settings: Settings, known: Known) -> Sequence[str]:
    """Return the kinds of text whose handlers are off, without those that are there.

    Workers may have other settings than this command: a text that is there was rebuilt.
    """
    from service.handler_packages import disabled_kinds

    there = {text.kind for text in known.texts} | {part.kind for part in known.open}
    try:
        return [kind for kind in disabled_kinds(settings.handlers) if kind not in there]
    except Exception:  # noqa: BLE001 - a broken package of a handler must not hide the texts of the others
        return ()


def _print(target: Console, known: Known, off: str) -> None:
    from rich.text import Text

    from service.cli.entries import alert_of, clock_time, text_of
    from service.cli.output import facts, kind_name, labelled, plural
    from service.visible import visible

    context = known.context
    target.print(Text(visible(known.id), style="bold"))
    whose = facts(
        (
            context.get("model"),
            *(labelled(name.replace("_", " "), context.get(name)) for name in context if name != "model"),
        )
    )
    if whose:
        target.print(whose)
    target.print()
    for text in known.texts:
        target.print(text_of(target, text, response=False))
    for part in known.open:
        target.print(
            facts(
                (
                    Text(clock_time(part.since), style="dim"),
                    kind_name(part.kind),
                    Text("still open", style="yellow"),
                    plural(part.events, "event"),
                    f"{plural(part.text_bytes, 'byte')} so far",
                    part.item_id,
                    f"{part.output_index}:{part.content_index}",
                )
            )
        )
    for alert in known.alerts:
        target.print(alert_of(target, alert))
    if off:
        target.print(
            Text(f"not rebuilt by these settings: {visible(off)}; see DELTALOOM_HANDLERS", style="dim")
        )
