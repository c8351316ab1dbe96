"""`deltaloom metrics`: print the metrics of the whole deployment once, for cron and textfile collectors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.observability.metrics.samples import Samples
    from service.settings import Settings

EXAMPLES = examples(
    "deltaloom metrics",
    "deltaloom metrics --output /var/lib/node_exporter/textfile/deltaloom.prom",
)

_WITHIN = 5.0
"""Seconds in which Redis must have answered."""


def run(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Replace this file at once, instead of printing."
        ),
    ] = None,
) -> None:
    """Print the metrics of the whole deployment once: what Redis knows, not what each process has done.

    The exit code is 1 if Redis does not answer within five seconds; `deltaloom_redis_up` is then 0.
    """
    from service.cli.command_errors import CommandError
    from service.cli.connect import read_settings
    from service.cli.file_in_one_step import replace_file
    from service.observability.metrics.exposition import exposition

    settings = read_settings()
    failure: CommandError | None = None
    try:
        samples = asyncio.run(_measured(settings))
    except CommandError as error:
        samples, failure = _away(), error
    text, _ = exposition(samples)
    if output is None:
        typer.echo(text.decode(), nl=False)
    else:
        replace_file(output, text)
    if failure is not None:
        raise failure


async def _measured(settings: Settings) -> Samples:
    """Return the metrics of the group, and of each destination.

    Raises:
        CommandError: Redis does not answer, or refuses to.
    """
    from service.cli.command_errors import CommandError
    from service.cli.connect import address

    try:
        async with asyncio.timeout(_WITHIN):
            return await _asked(settings)
    except TimeoutError:
        where = address(settings.redis_url)
        raise CommandError(f"{where} does not answer within {_WITHIN:g} s: see whether it hangs") from None


async def _asked(settings: Settings) -> Samples:
    from service.cli.connect import connect
    from service.observability.metrics.leader import samples_of
    from service.observability.metrics.process_samples import of_process
    from service.observability.metrics.relay_counts import samples_of_backlogs
    from service.storage.group_figures import RedisFigures
    from service.storage.redis_outbox import backlogs

    partitions = settings.names.all
    async with connect(settings) as client:
        figures = RedisFigures(client, partitions, in_cluster=settings.address.mode == "cluster")
        of_group = samples_of(await figures.ask())
        of_relays = samples_of_backlogs(await backlogs(client, [names.alerts for names in partitions]))
    return of_process(is_up=True) | of_group | of_relays


def _away() -> Samples:
    from service.observability.metrics.process_samples import of_process

    return of_process(is_up=False)
