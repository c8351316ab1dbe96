"""Test the constants of health in docs/operations.md against the code."""

from __future__ import annotations

from service.observability.heartbeat_file import STALE_AFTER
from service.observability.http_server import CONNECTION_SECONDS, MAX_CONNECTIONS
from service.observability.liveness import LIMITS, STUCK_AFTER
from service.observability.siblings import STARTS_WITHIN
from tests.docs.pages import OPERATIONS, quoted


def test_limits_are_on_the_page() -> None:
    """The page has the limit of each step, and the time after which it is stuck."""
    rows = OPERATIONS.table("Limits of steps")
    shown = {quoted(row[0])[0]: (float(row[1]), float(row[2])) for row in rows}
    assert shown == {step: (limit, STUCK_AFTER * limit) for step, limit in LIMITS.items()}


def test_other_constants_are_on_the_page() -> None:
    """The page has the limits of connections, and the age of a heartbeat."""
    page = " ".join(OPERATIONS.path.read_text("utf-8").split())
    assert f"within {CONNECTION_SECONDS:g} seconds; there are at most {MAX_CONNECTIONS} connections" in page
    assert f"A process has {STARTS_WITHIN:g} seconds for its first sign of life" in page
    assert f"if a file is older than {STALE_AFTER:g} seconds" in page
