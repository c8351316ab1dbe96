"""Settings of the archive: those of a worker that concern Redis, logs and HTTP, and its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field, FiniteFloat

from archive.retention_rules import retentions_in
from service.settings import Settings

if TYPE_CHECKING:
    from archive.archive_repository import Retention

_FILE = "sqlite:"
_SCHEMES = ("postgresql://", "postgres://")


def _archive_url(url: str) -> str:
    if not url.removeprefix(_FILE) or not url.startswith((_FILE, *_SCHEMES)):
        message = "postgresql://user@host/database, or sqlite: and a path"
        raise ValueError(message)
    if not url.startswith(_FILE):
        _check_server(url.partition("://")[2])
    return url


def _check_server(rest: str) -> None:
    """Check a URL without its scheme. PostgreSQL's library reads `u:a/b@host` as host `u` with port `a`.

    Raises:
        ValueError: a character has to be encoded; the message repeats nothing of the URL.
    """
    encode = (
        "in a user, password or database, write / as %2F, @ as %40, : as %3A, % as %25 and a space as %20"
    )
    if re.search(r"\s|%(?![0-9a-fA-F]{2})", rest):
        raise ValueError(f"it has a space, or a % without two hexadecimal digits; {encode}")
    user, at, others = rest.partition("@")
    place = others if at and "/" not in user else rest
    hosts, _, database = place.partition("?")[0].partition("/")
    ports = [each.rpartition("]")[2].rpartition(":") for each in hosts.split(",")]
    if "@" in hosts + database or any(colon and not port.isdecimal() for _, colon, port in ports):
        raise ValueError(f"host, port or database has a character that it cannot have; {encode}")


def _retention(text: str | None) -> str | None:
    retentions_in(text or "")
    return text or None


class ArchiveSettings(Settings):
    """The settings of `deltaloom archive`. Times are in seconds, sizes in bytes."""

    secrets: ClassVar[dict[str, tuple[str, ...]]] = {
        **Settings.secrets,
        "archive_url": ("DELTALOOM_ARCHIVE_URL",),
    }

    archive_url: Annotated[str, AfterValidator(_archive_url)] = Field(
        default="sqlite:archive.db",
        repr=False,
        description="The database: `postgresql://user@host/database`, or `sqlite:` and the path of a file. "
        "`DELTALOOM_ARCHIVE_URL_FILE` names a file with the URL instead.",
    )
    archive_group: str = Field(
        default="archive",
        min_length=1,
        max_length=100,
        description="Consumer group of the archivers on the output streams.",
    )
    archive_batch: int = Field(
        default=500,
        ge=1,
        le=5000,
        description="Maximum entries of a transaction; fewer if they are large.",
    )

    archive_retention: Annotated[str | None, AfterValidator(_retention)] = Field(
        default=None,
        description="Seconds for which records are kept, such as `*=31536000,*/reasoning=86400,acme=7776000,"
        "acme/reasoning=3600`: by tenant (`*` for any), or by tenant and kind. Of several that fit, that of "
        "tenant and kind counts, then tenant, then kind. Write `%2C` for a comma in a tenant, `%2F` for `/` "
        "and `%3D` for `=`. Unset: for ever.",
    )
    archive_retention_interval: FiniteFloat = Field(
        default=3600,
        ge=1,
        description="Seconds between two rounds in which an archiver deletes what is older.",
    )

    @property
    def retentions(self) -> list[Retention]:
        """The rules of the retention; none if everything is kept for ever."""
        return retentions_in(self.archive_retention or "")

    @property
    def archive_file(self) -> Path | None:
        """Path of the file of SQLite; None for PostgreSQL."""
        url = self.archive_url
        return Path(url.removeprefix(_FILE)) if url.startswith(_FILE) else None
