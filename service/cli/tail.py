"""`deltaloom tail`: follow one of the public streams."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from service.settings import Settings

EXAMPLES = examples(
    "deltaloom tail alerts",
    "deltaloom tail assembled --from-start --count 10",
    "deltaloom tail assembled --json | jq -r .text",
    "deltaloom tail deliveries --from-start",
)


class StreamChoice(StrEnum):
    """The streams that can be followed."""

    ASSEMBLED = "assembled"
    ALERTS = "alerts"
    DELIVERIES = "deliveries"
    DELTAS = "deltas"
    DEAD_LETTERS = "dead-letters"


class _View(NamedTuple):
    """The formatters of a stream; both raise `ValueError` for an entry that another program wrote."""

    pretty: Callable[[Console, str, dict[bytes, bytes]], RenderableType]
    json: Callable[[str, dict[bytes, bytes]], str]


def run(
    stream: Annotated[StreamChoice, typer.Argument(help="Stream to follow.", show_default=False)],
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the oldest entry, not with the next one.")
    ] = False,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N entries.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Follow the finished texts, the alerts, their deliveries, the input or the dead letters, until Ctrl-C.

    With several partitions, all are followed, each in its own order.
    """
    from service.cli.connect import read_settings

    settings = read_settings()
    try:
        _tail(settings, stream, from_start=from_start, count=count, as_json=json)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _view(stream: StreamChoice) -> _View:
    from service.cli import entries

    return {
        StreamChoice.ASSEMBLED: _View(entries.text_line, entries.message_json),
        StreamChoice.ALERTS: _View(entries.alert_line, entries.message_json),
        StreamChoice.DELIVERIES: _View(entries.delivery_line, entries.message_json),
        StreamChoice.DELTAS: _View(entries.input_of, entries.fields_json),
        StreamChoice.DEAD_LETTERS: _View(entries.letter_line, entries.letter_json),
    }[stream]


def _tail(
    settings: Settings, stream: StreamChoice, *, from_start: bool, count: int | None, as_json: bool
) -> None:
    from service.cli.connect import connect_blocking
    from service.cli.following import BEGINNING, ends_of, follow
    from service.cli.output import console, note, write_json
    from service.cli.partitions import qualified, together

    names = {each.name(stream.value): each for each in settings.names.all}
    view, target, shown = _view(stream), console(), 0
    with connect_blocking(settings) as client:
        after = dict.fromkeys(names, BEGINNING) if from_start else ends_of(client, names)
        if target.is_terminal and not as_json:
            since = "from its start" if from_start else "new entries only: --from-start shows all"
            note(f"following {together(settings, stream.value)}, {since} (Ctrl-C ends)", style="dim")
        apart = settings.address.mode == "cluster"
        for name, (plain_id, fields) in follow(client, after, apart=apart):
            entry_id = qualified(names[name], plain_id)
            try:
                if as_json:
                    write_json(view.json(entry_id, fields))
                else:
                    target.print(view.pretty(target, entry_id, fields))
            except ValueError:
                note(f"entry {plain_id} of {name} was not written by deltaloom: skipped")
            shown += 1
            if shown == count:
                return
