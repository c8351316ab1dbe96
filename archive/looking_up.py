"""Look up a response for `deltaloom show`, which shows what Redis and the archive have of it."""

from __future__ import annotations

from archive.archive_options import name_of, opened_archive


def bodies_of(response_id: str) -> list[tuple[str, bytes]]:
    """Return family and JSON of the records of a response, oldest first; the archive records who looked.

    Raises:
        CommandError: the archive is away, or does not exist.
        SettingsError: its settings are wrong, or its tables are those of another version.
    """
    with opened_archive() as archive:
        found = archive.of_response(response_id)
        archive.add_look(name_of(None), "show", len(found))
    return [(each.record.family, each.record.body) for each in found]
