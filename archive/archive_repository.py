"""The interface of the archive's database, and its data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from archive.record import Record, UnreadableEntry

SUBJECTS = ("response_id", "tenant", "safety_identifier", "reference")
"""Values by which records are held and erased."""


class ArchiveUnavailableError(Exception):
    """The database is away, or busy: try again. The message has no values of records and no password."""


class ArchiveRefusedError(Exception):
    """The database refuses these records. The message has no values of records."""


class SchemaError(Exception):
    """The tables are not those of this version; the message has the remedy."""


class RecordSubject(NamedTuple):
    """The records that have a value."""

    name: str
    """A name in `SUBJECTS`."""
    value: str


class Filter(NamedTuple):
    """Conditions that records fulfil; None for any."""

    family: str | None = None
    kind: str | None = None
    response_id: str | None = None
    tenant: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    reference: str | None = None
    since: datetime | None = None
    """Beginning of the span of time, which is part of it."""
    until: datetime | None = None
    """End of the span of time, which is no part of it."""


ALL = Filter()
"""Any record."""


class Archived(NamedTuple):
    """A record in the archive."""

    number: int | None
    """Number in the order in which records were archived, the cursor of an export; None in Redis only."""
    record: Record


class Inserted(NamedTuple):
    """Numbers of records by what became of them."""

    new: int = 0
    repeated: int = 0
    """Records that the archive had, or had before they were erased."""
    conflicts: int = 0
    """Records of which the archive has another content."""
    unreadable: int = 0


class Conflict(NamedTuple):
    """A message with the id of another one."""

    record: Record
    seen_at: datetime


class Hold(NamedTuple):
    """A hold: neither their age nor an erasure removes the records of its subject."""

    number: int
    subject: RecordSubject
    who: str
    why: str
    at: datetime


class Retention(NamedTuple):
    """The time for which records are kept.

    If several fit, that of tenant and kind counts, then tenant, then kind.
    """

    seconds: float
    kind: str | None = None
    tenant: str | None = None


class Remainder(NamedTuple):
    """Bytes of erased rows that are still in the database's files."""

    place: str
    until: str
    """The reason, and the remedy."""


class Erasure(NamedTuple):
    """The outcome of an erasure."""

    subject: RecordSubject
    at: datetime
    who: str
    erased: Mapping[str, int]
    """Rows that were deleted, by table."""
    held: Mapping[Hold, int]
    """Rows that stay, by the oldest hold that keeps them."""
    number: int
    """Number of the erasure in the archive."""
    remains: Sequence[Remainder] = ()
    """The bytes that could not be removed now."""


class ArchiveLook(NamedTuple):
    """A look into the archive. It has no words of a query, which may be those of a text."""

    at: datetime
    who: str
    what: str
    """Name of the command, and the names of its conditions."""
    found: int


class ArchiveRepository(Protocol):
    """The archive. Each method that writes is one transaction, except `retain`, which is several.

    `erase` is one as well, but first drops, in others, what an unfinished `retain` has left.

    All methods raise `ArchiveUnavailableError`; the transaction under way is then rolled back.
    """

    def insert(self, records: Sequence[Record], unreadable: Sequence[UnreadableEntry] = ()) -> Inserted:
        """Insert each record once, and keep conflicts and unreadable entries.

        Raises:
            ArchiveRefusedError: the database refuses a record; nothing was inserted.
        """
        ...

    def of_response(self, response_id: str, limit: int = 1000) -> list[Archived]:
        """Return the records of a response, by its id, its item's or its provider's, oldest first."""
        ...

    def search(
        self,
        words: str = "",
        part: str = "",
        where: Filter = ALL,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Archived]:
        """Return the records whose texts have all these words and this part, the latest archived ones first.

        Args:
            words: words in any order; empty for any text.
            part: a string; case does not matter.
            where: further conditions.
            before: number of the last record of the previous page.
            limit: maximum records.
        """
        ...

    def page(self, where: Filter = ALL, after: int = 0, limit: int = 500) -> list[Archived]:
        """Return the records that were archived after the one with number `after`, in that order."""
        ...

    def hold(self, subject: RecordSubject, who: str, why: str) -> Hold:
        """Keep all records of a subject, also those that come later, until the hold is released."""
        ...

    def release(self, number: int, who: str) -> bool:
        """End a hold; return False if there is none with this number."""
        ...

    def holds(self) -> list[Hold]:
        """Return all holds that were not released, oldest first."""
        ...

    def responses_of(self, subject: RecordSubject) -> set[str]:
        """Return the ids of the responses of a subject."""
        ...

    def held_responses(self, subject: RecordSubject) -> set[str]:
        """Return the ids of those responses of a subject of which a hold keeps a record."""
        ...

    def deliveries_of(self, subject: RecordSubject, responses: Collection[str] = ()) -> list[bytes]:
        """Return the bodies of the deliveries that `erase` would delete with these arguments."""
        ...

    def erase(
        self,
        subject: RecordSubject,
        who: str,
        responses: Collection[str] = (),
        gone: Collection[tuple[str, str]] = (),
    ) -> Erasure:
        """Delete the records of a subject, but those that are held.

        Records that do not name the subject, such as deliveries, go with the others of their response.

        Args:
            subject: the subject.
            who: who erases.
            responses: further responses of the subject.
            gone: keys of messages that are erased elsewhere: the archive does not take them any more.
        """
        ...

    def retain(self, rules: Sequence[Retention]) -> Mapping[str, int]:
        """Delete records older than their retention, except held ones; return the deleted rows by table."""
        ...

    def held_beyond(self, rules: Sequence[Retention]) -> Mapping[Hold, int]:
        """Return the number of records beyond their retention, by the oldest hold that keeps them."""
        ...

    def conflicts(self, limit: int = 100) -> list[Conflict]:
        """Return the latest conflicts, latest first."""
        ...

    def unreadable(self, limit: int = 100) -> list[UnreadableEntry]:
        """Return the latest unreadable entries, latest first."""
        ...

    def add_look(self, who: str, what: str, found: int) -> None:
        """Record that somebody looked into the archive."""
        ...

    def looks(self, limit: int = 100) -> list[ArchiveLook]:
        """Return the latest looks, latest first."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Return the number of rows by table."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
