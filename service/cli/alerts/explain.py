"""`deltaloom alerts explain`: show which rule and route match an alert, and why."""

from __future__ import annotations

import asyncio
import json as json_format
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.alerts_file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType
    from rich.text import Text

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.explanation import Explanation
    from service.alerts.deciding.policy import Decision

EXAMPLES = examples(
    "deltaloom alerts explain resp_42",
    "deltaloom alerts explain alert.json --config staging.toml",
    "deltaloom tail alerts --json --count 1 | deltaloom alerts explain -",
)

STANDARD_INPUT = "-"


def run(
    of: Annotated[
        str,
        typer.Argument(
            metavar="FILE|ID",
            help="File of alerts as JSON, one per line (- is standard input); or the id of an alert, of its"
            " entry, of a response or of an item.",
            show_default=False,
        ),
    ],
    config: ConfigFile = DEFAULT,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Explain how the file treats an alert: rules, routes, and what each destination gets.

    Nothing is sent. The alert is treated as if it came now, so mutes that have ended do not apply.
    """
    from service.alerts.deciding.config import parse, read
    from service.alerts.deciding.explanation import explain
    from service.alerts.deciding.policy import Policy
    from service.cli.output import console, write_json

    policy = Policy(parse(read(config), str(config)))
    alerts = _of_file(of) if of == STANDARD_INPUT or Path(of).is_file() else asyncio.run(_of_stream(of))
    now = datetime.now(UTC)
    for alert in alerts:
        explanation = explain(policy, alert, now)
        if json:
            write_json(json_format.dumps(explanation.to_json(), ensure_ascii=False))
        else:
            target = console()
            target.print(_shown(target, explanation))


def _of_file(name: str) -> list[ModerationAlert]:
    from service.cli.command_errors import CommandError

    try:
        text = sys.stdin.read() if name == STANDARD_INPUT else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"{name} cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}"
        ) from None
    alerts = list(_alerts_in(name, text))
    if not alerts:
        raise CommandError(f"{name} holds no alert")
    return alerts


def _alerts_in(name: str, text: str) -> Iterable[ModerationAlert]:
    """Yield the alerts of a file: a single JSON object over any number of lines, or one object per line."""
    from service.alert_parsing import NotAnAlertError, parse_alert
    from service.cli.command_errors import CommandError

    try:
        json_format.loads(text)
        lines = [text]
    except ValueError:
        lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield parse_alert(line).alert
        except NotAnAlertError as error:
            where = f"line {number}: " if len(lines) > 1 else ""
            raise CommandError(f"{name} holds something that is not an alert: {where}{error}") from None


async def _of_stream(wanted: str) -> list[ModerationAlert]:
    """Return the alerts on the stream that an id identifies, the oldest first."""
    from service.cli.alerts.search import alerts_of
    from service.cli.command_errors import CommandError
    from service.cli.connect import connect, read_settings

    settings = read_settings()
    async with connect(settings) as client:
        found = await alerts_of(client, settings.names, wanted)
    if not found:
        raise CommandError(
            f"{wanted} is not a file, and the stream of alerts has no alert, entry, response or item with "
            "this id (any more)"
        )
    return found


def _shown(target: Console, explanation: Explanation) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from service.cli.output import SEVERITY_STYLES, facts, indented, styled
    from service.visible import visible

    judged = explanation.judged
    title = facts(
        (
            Text(visible(judged.alert.id), style="bold"),
            judged.alert.type.removeprefix("deltaloom.").replace(".", " "),
            styled(judged.severity, SEVERITY_STYLES),
            judged.category,
        )
    )
    passed_over = [_line(asked.rule.name, asked.mismatch) for asked in explanation.asked if asked.mismatch]
    routes = [_line(f"{route.name} → {', '.join(route.to)}", route.mismatch) for route in explanation.routes]
    destinations = [line for each in explanation.decisions.items() for line in _decided(target, *each)]
    return Group(
        title,
        indented(Text(visible(explanation.because))),
        *_section("rules asked before", passed_over),
        *_section("routes", routes),
        *_section("destinations", destinations),
        "",
    )


def _section(title: str, lines: Sequence[Text]) -> list[RenderableType]:
    from rich.text import Text

    from service.cli.output import indented

    return [Text(title, style="dim"), *map(indented, lines)] if lines else []


def _line(name: str, why_not: str | None) -> Text:
    from rich.text import Text

    from service.visible import visible

    mark = Text("fits", style="green") if why_not is None else Text(visible(why_not), style="dim")
    return Text.assemble(visible(name), ": ", mark)


def _decided(target: Console, name: str, decision: Decision) -> list[Text]:
    from rich.text import Text

    from service.alerts.delivery import Notification
    from service.cli.output import facts, labelled, paragraph
    from service.visible import visible

    title = Text(f"{visible(name)}: ")
    if not isinstance(decision, Notification):
        return [title + Text(decision.reason, style="yellow") + Text(f", {visible(decision.why)}")]
    title += Text("gets it", style="green") + Text(" ")
    how = facts(
        (
            labelled("by", decision.route),
            labelled("text", decision.privacy),
            labelled("group", decision.dedup_key),
            "resolves what was sent before" if decision.resolves else None,
        )
    )
    words = (decision.alert.text, decision.alert.provider_explanation)
    return [title + how, *(paragraph(target, each) for each in words if each)]
