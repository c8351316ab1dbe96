"""`deltaloom alerts check`: validate the file of destinations, rules and routes."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.alerts_file import DEFAULT, VARIABLE
from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.alerts.deciding.findings import Finding
    from service.alerts.deciding.schema import Config

EXAMPLES = examples("deltaloom alerts check", "deltaloom alerts check staging.toml --no-secrets")


def run(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", envvar=VARIABLE, help="File of destinations, rules and routes.", show_envvar=True
        ),
    ] = DEFAULT,
    secrets: Annotated[
        bool,
        typer.Option(help="Check also that the variables and files that it names hold usable secrets."),
    ] = True,
) -> None:
    """Check a file of destinations, rules and routes, and report mistakes and settings without effect.

    The exit code is 2 if the relay could not use the file, and 0 if there are only warnings. Nothing is sent,
    and no server is needed.
    """
    from service.alerts.deciding.config import parse, read, secrets_missing, warnings
    from service.alerts.deciding.findings import ConfigError
    from service.cli.output import console, note

    text = read(file)
    config = parse(text, str(file))
    wrong: list[Finding] = []
    if secrets:
        wrong = secrets_missing(text, config, os.environ) or asyncio.run(_unusable(text, config))
    for finding in warnings(text, config, datetime.now(UTC)):
        note(f"warning: {finding.as_line(str(file))}")
    if wrong:
        raise ConfigError(str(file), wrong)
    console().print(f"{file}: {_summary(config)}")


async def _unusable(text: str, config: Config) -> list[Finding]:
    """Return findings about destinations that cannot be created, for example with an invalid secret."""
    from service.alerts.deciding.findings import SourceLocations
    from service.alerts.destinations.failures import DestinationError
    from service.alerts.destinations.registry import create_destination

    locations, found = SourceLocations(text), []
    for name, options in config.destinations.items():
        try:
            destination = create_destination(name, options, os.environ)
        except DestinationError as error:
            found.append(locations.finding(("destinations", name), str(error)))
        else:
            await destination.aclose()
    return found


def _summary(config: Config) -> str:
    from service.alerts.deciding.rules import rules_of
    from service.cli.output import plural

    own = len(config.rules)
    return ", ".join(
        (
            plural(len(config.destinations), "destination"),
            plural(len(config.routes), "route") if config.routes else "no routes (everything to everybody)",
            f"{plural(own, 'rule')} of its own and {len(rules_of(config)) - own} shipped",
            plural(len(config.mutes), "mute"),
        )
    )
