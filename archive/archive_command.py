"""`deltaloom archive`: keep texts, alerts and deliveries in a database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from archive import archive_lookups, erase_command, retain_command
from service.cli.help_text import examples, prose

if TYPE_CHECKING:
    from archive.archive_settings import ArchiveSettings

EXAMPLES = examples(
    "DELTALOOM_ARCHIVE_URL=sqlite:/var/lib/deltaloom/archive.db deltaloom archive run",
    "DELTALOOM_ARCHIVE_URL_FILE=/run/secrets/archive deltaloom archive migrate",
)

app = typer.Typer(
    help="Keep finished texts, alerts and deliveries in a database, for months.",
    epilog=EXAMPLES,
    no_args_is_help=True,
)


def run() -> None:
    """Archive the output streams until SIGTERM or Ctrl-C. Start several if one is not fast enough.

    It waits while Redis or the database is away. Settings come from the environment: REDIS_URL, and
    DELTALOOM_ARCHIVE_… (docs/archive.md lists them).
    """
    from service.cli.process_wide import lean_imports, run_in_loop

    with lean_imports():
        import archive.archive_app  # noqa: F401 - imports most of what an archiver needs
        from archive.archive_settings import ArchiveSettings
        from service.cli.log_level import configure_logs

    settings = ArchiveSettings.read()
    configure_logs(settings)
    run_in_loop(_until_stopped(settings))


async def _until_stopped(settings: ArchiveSettings) -> None:
    """Archive until a signal."""
    from archive.archive_app import ArchiveApp
    from service.cli.measuring import metrics_of
    from service.cli.process_wide import collect_garbage_rarely, stop_on_signals
    from service.observability.observation import observing

    stopped = asyncio.Event()
    stop_on_signals(stopped.set)
    async with observing(settings) as observation:
        archiver = ArchiveApp(settings)
        observation.parts["archive"] = archiver
        if (metrics := metrics_of(settings)) is not None:
            metrics.add(archiver.samples)
            observation.routes.update(metrics.routes)
        starting = asyncio.create_task(archiver.start())
        stopping = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                collect_garbage_rarely()
                await stopping
            observation.stopping()
        finally:
            stopping.cancel()
            starting.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            await archiver.stop()


def migrate(
    to: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="NUMBER", help="Number of the last migration.", show_default="the latest"
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before tables are removed.")] = False,
) -> None:
    """Create the tables of the archive, or bring them to another version. Running it again is harmless.

    A lower number than the present one takes migrations back: 0 removes all tables, with all that is in them.
    """
    from archive.archive_options import closing_database
    from archive.archive_settings import ArchiveSettings
    from archive.archive_url import check_folder, database_of
    from archive.migrating import migrate as apply

    if to is not None and not yes:
        typer.confirm(f"Take back all migrations above {to}, with what is in their tables?", abort=True)
    settings = ArchiveSettings.read()
    check_folder(settings)
    database = database_of(settings)
    with closing_database(database):
        done = apply(database, to)
    for name in done or ["nothing to do"]:
        typer.echo(name)


for name, command, shown in (
    ("run", run, EXAMPLES),
    ("migrate", migrate, EXAMPLES),
    ("search", archive_lookups.search, archive_lookups.SEARCH_EXAMPLES),
    ("show", archive_lookups.show, archive_lookups.SHOW_EXAMPLES),
    ("export", archive_lookups.export, archive_lookups.EXPORT_EXAMPLES),
    ("hold", archive_lookups.hold, archive_lookups.HOLD_EXAMPLES),
    ("release", archive_lookups.release, archive_lookups.RELEASE_EXAMPLES),
    ("holds", archive_lookups.holds, archive_lookups.HOLDS_EXAMPLES),
    ("erase", erase_command.erase, erase_command.ERASE_EXAMPLES),
    ("retain", retain_command.retain, retain_command.RETAIN_EXAMPLES),
    ("verify", erase_command.verify, erase_command.VERIFY_EXAMPLES),
):
    app.command(name, help=prose(command), epilog=shown)(command)
