"""Logging with structlog: readable lines on a terminal, JSON lines otherwise, also for `logging`.

Texts of events are not logged at any level, unless `DELTALOOM_LOG_TEXT=true`: a line has such a text only
under the keys `text` and `provider_explanation`, which a processor here removes. Control characters and
invisible characters in ids and names are escaped (`service/visible.py`).

Lines beyond a budget for each level and event are left out and counted (`service/log_budget.py`), except
those that are an output: the lines of a log destination (`unlimited`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import traceback
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from service.lean_structlog import structlog
from service.log_budget import SEVERE, LogBudget
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
_UNLIMITED = "_unlimited"
"""Key that marks a line without a budget; a processor removes it."""
_TIMER_ERROR = 0.01
"""Seconds by which a timer of a loop may be early, and more."""


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


OUT_OF_MEMORY = (
    "MemoryError: give this process more memory; docs/runbooks.md, DeltaloomLowWaterStuck, on huge entries"
)
"""The text in place of the traceback of a `MemoryError`."""


def traceback_of(exc_info: ExcInfo) -> str:
    """Return a traceback without local variables and without rejected values: both may be users' texts."""
    error: BaseException | None = exc_info[1]
    if isinstance(error, MemoryError):  # where it struck is chance; the remedy is the same everywhere
        return OUT_OF_MEMORY
    written = "".join(traceback.format_exception(*exc_info))
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

    @property
    def log_burst(self) -> int:
        """Maximum lines of one level and event in a window; 0 for no limit."""
        ...


class _Limit:
    """Drops lines beyond the budget: those of structlog as a processor, those of `logging` as a filter.

    A line of a library counts for its logger, since its message may differ each time.
    """

    def __init__(self, burst: int) -> None:
        self.budget = LogBudget(burst, self._report, self._end_later)
        self._context = copy_context()  # with what is bound in the whole process, but nothing of a batch

    def __call__(
        self, _logger: WrappedLogger, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if event.pop(_UNLIMITED, False) or self.budget.admits(method, event["event"]):
            return event
        raise structlog.DropEvent

    def filter(self, record: logging.LogRecord) -> bool:
        return self.budget.admits(record.levelname.lower(), record.name)

    def _end_later(self, seconds: float) -> None:
        """End the window in time, also if no further line does. Without a loop, `finish` ends it."""
        with suppress(RuntimeError):
            asyncio.get_running_loop().call_later(seconds + _TIMER_ERROR, self.budget.end_window_if_over)

    def _report(self, level: str, name: str, lines: int, seconds: float) -> None:
        self._context.copy().run(_log_left_out, level, name, lines, round(seconds, 1))


def _log_left_out(level: str, name: str, lines: int, seconds: float) -> None:
    log = unlimited()
    if level in SEVERE:
        log.error("log lines left out", of_event=name, of_level=level, lines=lines, seconds=seconds)
    else:
        log.warning("log lines left out", of_event=name, of_level=level, lines=lines, seconds=seconds)


_limit = _Limit(0)


_latest: deque[dict[str, Any]] = deque(maxlen=20)
_changing_latest = threading.Lock()
"""Held while `_latest` is read and changed: the threads that decode large entries warn too."""
_OF_ONE_EVENT = 5
"""Maximum remembered lines of one event, so that a frequent one does not push out the others."""
_REMEMBERED = ("timestamp", "level", "event", "state", "task", "destination", "stream", "process", "reason")


def _remember(
    _logger: WrappedLogger, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Remember warnings and errors for people, without fields that may quote an event."""
    if method not in {"debug", "info"}:
        line = {key: visible(str(event[key])) for key in _REMEMBERED if key in event}
        with _changing_latest:
            alike = [each for each in _latest if each["event"] == line["event"]]
            if len(alike) >= _OF_ONE_EVENT:
                _latest.remove(alike[0])
            _latest.append(line)
    return event


def latest_warnings() -> list[dict[str, Any]]:
    """Return the latest warnings and errors of this process, oldest first, without error texts.

    They are at most 20, and at most five of one event.
    """
    return list(_latest)


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Write all log lines of this process to `stream` (default: stderr), in the configured format."""
    global _limit  # noqa: PLW0603 - logging belongs to the process
    stream = stream or sys.stderr
    _limit = _Limit(settings.log_burst)
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if pretty else "iso", utc=not pretty),
    ]
    shared.append(_remember)
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
    handler.addFilter(_limit)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Our own lines bypass the standard library, which would double the time for a line.
    structlog.configure(
        processors=[_limit, _with_our_name, *shared, *final],
        logger_factory=lambda *_: _LogLines(stream),
        cache_logger_on_first_use=False,
    )
    set_level(settings.log_level)


def set_level(name: str) -> None:
    """Set the lowest level of lines that are written, in lower case."""
    level = logging.getLevelNamesMapping()[name.upper()]
    logging.getLogger().setLevel(level)
    for chatty in _LIBRARIES:
        logging.getLogger(chatty).setLevel("DEBUG" if name == "debug" else "WARNING")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))


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


def unlimited() -> FilteringBoundLogger:
    """Return a logger whose lines have no budget, for lines that are an output or a report."""
    unlimited_logger: FilteringBoundLogger = logger().bind(**{_UNLIMITED: True})
    return unlimited_logger


def finish() -> None:
    """Report the lines that were left out since the last report, before the process ends."""
    _limit.budget.end_window()


def wanted(level: int) -> bool:
    """Return whether lines of a level (of `logging`) are written, to avoid the cost of unused lines."""
    return logging.getLogger(LOGGER).isEnabledFor(level)
