"""Test what a relay logs about tasks that have failed."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from service.apps import relay_app


async def _fail() -> None:
    raise LookupError("bug")


async def _succeed() -> None:
    pass


async def test_only_failures_are_logged() -> None:
    """Log the exception of a failed task, and nothing about tasks that ended, run or were cancelled."""
    failed, ended, cancelled = (asyncio.create_task(each()) for each in (_fail, _succeed, _fail))
    cancelled.cancel()
    await asyncio.wait({failed, ended, cancelled})
    running = asyncio.create_task(_succeed())
    with capture_logs() as lines:
        relay_app._log_failures(failed, ended, cancelled, running)  # noqa: SLF001 - else a race must be won
    await running
    assert [(line["event"], line["log_level"]) for line in lines] == [("relay failed, restarting", "error")]
