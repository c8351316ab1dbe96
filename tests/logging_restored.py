"""Restore what `service.logs` changes for the whole process."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from service.logs import FASTSTREAM_LOGGER

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGGERS = (None, FASTSTREAM_LOGGER, "redis", "asyncio")
"""Loggers that `service.logs` changes."""


@contextmanager
def logging_restored() -> Iterator[None]:
    """Restore loggers and structlog at the end of the block."""
    configured, configuration = structlog.is_configured(), structlog.get_config()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(each, each.level, list(each.handlers)) for each in loggers]
    try:
        yield
    finally:
        for each, level, handlers in before:
            each.setLevel(level)
            each.handlers[:] = handlers
        structlog.reset_defaults()
        if configured:
            structlog.configure(**configuration)
