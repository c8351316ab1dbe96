"""Logging with structlog: readable lines on a terminal, JSON lines otherwise, also for `logging`.

Texts of events are not logged at any level, unless `DELTALOOM_LOG_TEXT=true`: a line has such a text only
under the keys `text` and `provider_explanation`, which a processor here removes. Control characters and
invisible characters in ids and names are escaped (`service/visible.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import traceback
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import structlog
from pydantic import ValidationError

from service.visible import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from typing import Any, TextIO

    from structlog.typing import ExcInfo, FilteringBoundLogger, Processor, WrappedLogger


LOGGER = "deltaloom"
FASTSTREAM_LOGGER = "deltaloom.faststream"
_LIBRARIES = (FASTSTREAM_LOGGER, "redis", "asyncio")
"""Verbose loggers of libraries; below warnings, their lines are written only at the level debug."""
_TEXTS = ("text", "provider_explanation")
"""Keys of a line with a text of a model, or of a provider about a user's request."""


def _without_text(
    _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key in _TEXTS:
        event.pop(key, None)
    return event


def _with_our_name(
    _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event["logger"] = LOGGER
    return event


def _dumps(event: object, **how: Any) -> str:
    return visible_json(json.dumps(event, **how))


def _visible(
    _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Escape control characters and invisible characters; only a traceback keeps its line breaks."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = visible(value, keep="\n" if key == "exception" else "")
        elif (shown := visible(written := repr(value))) != written:
            event[key] = shown
    return event


def traceback_of(exc_info: ExcInfo) -> str:
    """Return a traceback without local variables and without rejected values: both may be users' texts."""
    written = "".join(traceback.format_exception(*exc_info))
    error: BaseException | None = exc_info[1]
    while error is not None:
        if isinstance(error, ValidationError):
            where = (".".join(map(str, each["loc"])) + ": " + each["type"] for each in error.errors())
            written = written.replace(str(error), f"{error.title}: {', '.join(where)}")
        error = error.__cause__ or error.__context__
    return written.rstrip()


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Return False for a cancellation, which this program has caused but FastStream logs as an error."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


class _LogLines:
    """Writes lines to a stream. A line that cannot be written (full disk, closed pipe) is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = write


class LogSettings(Protocol):
    """The settings of logs."""

    @property
    def log_level(self) -> str:
        """Lowest level of log lines that are written, in lower case."""
        ...

    @property
    def log_format(self) -> str:
        """Format of log lines: `auto`, `pretty` or `json`."""
        ...

    @property
    def log_text(self) -> bool:
        """True to log the texts of models."""
        ...


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Write all log lines of this process to `stream` (default: stderr), in the configured format."""
    stream = stream or sys.stderr
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and stream.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if pretty else "iso", utc=not pretty),
    ]
    if not settings.log_text:
        shared.append(_without_text)
    final: list[Processor] = [structlog.processors.ExceptionRenderer(traceback_of)]
    if pretty:
        final += [_visible, structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=24)]
    else:
        final.append(structlog.processors.JSONRenderer(_dumps, ensure_ascii=False))
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                *shared,
                structlog.stdlib.ExtraAdder(allow=("channel", "message_id")),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    handler.addFilter(_is_no_cancellation)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in _LIBRARIES:
        logging.getLogger(chatty).setLevel("DEBUG" if settings.log_level == "debug" else "WARNING")
    # Our own lines bypass the standard library, which would double the time for a line.
    structlog.configure(
        processors=[_with_our_name, *shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LogLines(stream),
        cache_logger_on_first_use=False,
    )


bound = structlog.contextvars.bound_contextvars
"""Context manager that adds key-value pairs to all lines of its block: `with bound(stream=…):`."""


_silence: ContextVar[bool] = ContextVar("silence", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """Suppress all of our log lines within the block."""
    token = _silence.set(True)
    try:
        yield
    finally:
        _silence.reset(token)


def _drop(_logger: WrappedLogger, _method: str, _event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    raise structlog.DropEvent


def logger() -> FilteringBoundLogger:
    """Return our logger, or one that drops all lines within `silent()`."""
    if _silence.get():
        nobody: FilteringBoundLogger = structlog.wrap_logger(None, processors=[_drop])
        return nobody
    bound_logger: FilteringBoundLogger = structlog.get_logger()
    return bound_logger


def wanted(level: int) -> bool:
    """Return whether lines of a level (of `logging`) are written, to avoid the cost of unused lines."""
    return logging.getLogger(LOGGER).isEnabledFor(level)
