"""Build the environment of the commands under test."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[3]


def environment(redis_url: str | None = None, prefix: str | None = None, **more: str) -> dict[str, str]:
    """Return this process's environment with only these settings, and without `COLUMNS` and the like."""
    dropped = ("DELTALOOM_", "REDIS_URL", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    given = {"REDIS_URL": redis_url, "DELTALOOM_PREFIX": prefix}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "client"))),
        **{name: value for name, value in given.items() if value is not None},
        **more,
    }
