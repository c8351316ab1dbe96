"""Test the export of traces to a receiver that refuses, and with variables that cannot be used."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_SCHEDULE_DELAY
from structlog.testing import capture_logs

from service.observability.otel_environment import TraceTarget
from service.observability.tracing.trace_export import TraceExport
from service.settings import Settings
from tests.receivers import receiving, status
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _has(lines: Sequence[Mapping[str, Any]], event: str) -> bool:
    return any(line["event"] == event for line in lines)


async def test_failure_and_recovery_are_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log that spans are refused, and later that they are received again, with the numbers."""
    monkeypatch.setenv(OTEL_BSP_SCHEDULE_DELAY, "10")
    with capture_logs() as lines:
        async with receiving(status(400, "no"), status(200, "")) as receiver:
            export = TraceExport(Settings(), TraceTarget(f"{receiver.url}/v1/traces", "", None), "test")
            try:
                for event in ("traces not exported", "traces exported again"):
                    with export.spans.batch("deltas", 1, redelivered=False):
                        pass
                    await wait_until(partial(_has, lines, event), message=event)
            finally:
                await export.close()
    assert export.outcomes() == {"exported": 1, "failed": 1, "dropped": 0}
    assert (await export.status())["spans"]["waiting"] == 0
    again = next(line for line in lines if line["event"] == "traces exported again")
    assert (again["failed"], again["dropped"]) == (1, 0)
    stopped = next(line for line in lines if line["event"] == "traces stopped")
    assert (stopped["exported"], stopped["lost"]) == (1, 1)


async def test_a_failed_start_leaves_the_logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the error of an unusable variable, and no longer take the messages of the SDK."""
    monkeypatch.setenv(OTEL_BSP_MAX_QUEUE_SIZE, "none")
    sdk = logging.getLogger("opentelemetry")
    before = list(sdk.handlers), list(sdk.filters), sdk.propagate
    with pytest.raises(ValueError, match="none"):
        TraceExport(Settings(), TraceTarget("http://127.0.0.1:1/v1/traces", "", None), "test")
    assert (list(sdk.handlers), list(sdk.filters), sdk.propagate) == before
