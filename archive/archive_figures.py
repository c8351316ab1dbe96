"""The metrics of an archiver."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from archive.sql_archive import SqlArchive
from service.observability.metrics import catalog
from service.observability.metrics.process_samples import of_redis_user
from service.observability.metrics.samples import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from archive.archive_repository import Inserted
    from archive.database import Database
    from archive.record import Record, UnreadableEntry
    from service.observability.metrics.samples import Samples
    from service.ports.deployment_figures import BacklogFigures
    from service.ports.instruments import Availability

OUTCOMES = ("new", "repeated", "conflicts", "unreadable", "lost")
"""Names of the counts of entries. All are exported from the start, so that the first one is an increase."""


class MeasuredArchive(SqlArchive):
    """An archive that measures the transactions which insert records.

    Args:
        database: the database.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.seconds = Histogram(catalog.ARCHIVE_COMMIT_SECONDS)

    def insert(self, records: Sequence[Record], unreadable: Sequence[UnreadableEntry] = ()) -> Inserted:
        """Insert each record once; see `ArchiveRepository.insert`."""
        began = time.perf_counter()
        inserted = super().insert(records, unreadable)
        self.seconds.observe(time.perf_counter() - began)
        return inserted


def samples_of(
    counts: Mapping[str, int],
    archive: MeasuredArchive,
    backlog: BacklogFigures | None,
    looked_at: float,
    redis: Availability,
    *,
    database_up: bool,
) -> Samples:
    """Return the values of all metrics of an archiver.

    Args:
        counts: entries by what became of them.
        archive: its archive.
        backlog: the entries that its group had still to archive at the last look; None if they are not known.
        looked_at: time of the last look, in seconds since the epoch.
        redis: whether Redis is available.
        database_up: False if the database is away, or does not answer.
    """
    samples: Samples = of_redis_user([redis]) | {
        catalog.ARCHIVE_DATABASE_UP.name: {(): int(database_up)},
        catalog.ARCHIVE_ENTRIES.name: {(name,): counts.get(name, 0) for name in OUTCOMES},
        catalog.ARCHIVE_COMMIT_SECONDS.name: {(): archive.seconds.distribution()},
    }
    if backlog is not None:
        samples[catalog.ARCHIVE_WAITING.name] = {(): backlog.alerts}
        samples[catalog.ARCHIVE_OLDEST.name] = {(): backlog.oldest_seconds(looked_at)}
    return samples
