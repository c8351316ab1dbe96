"""`deltaloom archive retain`."""

from __future__ import annotations

from archive.archive_options import opened_database
from service.cli.help_text import examples

RETAIN_EXAMPLES = examples(
    "DELTALOOM_ARCHIVE_RETENTION='*=31536000,*/reasoning=86400' deltaloom archive retain"
)


def retain() -> None:
    """Delete the records that are older than DELTALOOM_ARCHIVE_RETENTION, except those that are held.

    It prints what was deleted, and who holds what, as JSON. Archivers do the same every hour.
    """
    import json

    from archive.sql_archive import SqlArchive
    from service.cli.command_errors import CommandError
    from service.cli.output import write_json

    with opened_database() as (settings, database):
        if not settings.retentions:
            raise CommandError("DELTALOOM_ARCHIVE_RETENTION is not set: everything is kept for ever")
        archive = SqlArchive(database)
        deleted = archive.retain(settings.retentions)
        held = archive.held_beyond(settings.retentions)
    kept = [
        {
            "hold": hold.number,
            "who": hold.who,
            "why": hold.why,
            "since": hold.at.isoformat(timespec="seconds"),
            "records": count,
        }
        for hold, count in held.items()
    ]
    write_json(json.dumps({"deleted": dict(deleted), "held": kept}, ensure_ascii=False))
