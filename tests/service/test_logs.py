"""Test the logs: one format for all loggers, and never the text of a model or a person."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deltaloom.messages import AssembledText
from service import logs
from service.log_budget import LogBudget
from service.settings import Settings
from tests.hidden import NAME, hidden_in
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

MARKER = "ZQXMARKERXQZ"
"""A stand-in for a text that must not be logged."""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(emit: Callable[[], object], stream: io.StringIO | None = None, **settings: Any) -> str:
    """Return the log output of `emit`."""
    stream = io.StringIO() if stream is None else stream
    logs.configure(Settings(**settings), stream)
    emit()
    return stream.getvalue()


def lines(emit: Callable[[], object], **settings: Any) -> list[dict[str, Any]]:
    """Return the log lines of `emit`, parsed as JSON."""
    return [json.loads(line) for line in logged(emit, log_format="json", **settings).splitlines()]


def test_json_line_has_all_that_was_bound() -> None:
    """Write bound and passed fields. Otherwise a search for a response would not find its lines."""
    (line,) = lines(lambda: logs.logger().bind(stream="deltas").info("text finished", response="résp_1", n=2))
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "text finished",
        "level": "info",
        "logger": "deltaloom",
        "stream": "deltas",
        "response": "résp_1",
        "n": 2,
    }


def test_standard_librarys_lines_have_the_same_form() -> None:
    """Format lines of the standard library the same way. Otherwise a log reader would need two formats."""

    def emit() -> None:
        extra = {"channel": "deltas", "message_id": "1-0", "other": MARKER}
        logging.getLogger(logs.FASTSTREAM_LOGGER).error("failed: %s", "x", extra=extra)
        logging.getLogger("another").warning("plain")

    first, second = lines(emit)
    assert first.pop("timestamp")
    assert first == {
        "event": "failed: x",
        "level": "error",
        "logger": "deltaloom.faststream",
        "channel": "deltas",
        "message_id": "1-0",
    }
    assert (second["event"], second["logger"], second["level"]) == ("plain", "another", "warning")


@pytest.mark.parametrize("format_", ["json", "pretty"])
def test_one_line_an_event(format_: str) -> None:
    """Write each event on one line. Otherwise a log reader would read the rest as another event."""
    written = logged(lambda: logs.logger().info("a\nb", reason="c\nd"), log_format=format_)
    assert len(written.splitlines()) == 1


@pytest.mark.parametrize("format_", ["json", "pretty"])
def test_nothing_hidden_reaches_a_log(format_: str) -> None:
    """Escape invisible characters. Otherwise an id could control the terminal or forge a log line."""

    def emit() -> None:
        values = {"response": NAME, "blank": f"{NAME} {NAME}", "several": [NAME], "counted": {NAME: 1}}
        logs.logger().warning(f"event {NAME}", **values, half="\ud83d")
        logging.getLogger("another").warning("%s", NAME)
        try:
            _raise(NAME)
        except ValueError as error:
            error.add_note(NAME)
            logs.logger().exception("failed")

    written = logged(emit, log_format=format_)
    assert hidden_in(written, but="\n") == set()
    assert "failed" in written
    if format_ == "json":
        first, second, _ = map(json.loads, written.splitlines())
        assert (first["response"], first["counted"], second["event"]) == (NAME, {NAME: 1}, NAME)


@pytest.mark.parametrize(
    ("format_", "terminal", "is_json"),
    [("auto", False, True), ("auto", True, False), ("json", True, True), ("pretty", False, False)],
)
def test_format_follows_the_setting_then_the_terminal(format_: str, *, terminal: bool, is_json: bool) -> None:
    """Choose the format by the setting, then by whether the stream is a terminal."""
    stream = _Terminal() if terminal else io.StringIO()
    written = logged(lambda: logs.logger().info("hello"), stream, log_format=format_)
    assert written.startswith("{") is is_json
    assert ("\x1b[" in written) is (terminal and not is_json)


@given(
    st.dictionaries(st.sampled_from(["response", "item", "n"]), st.integers(), max_size=3),
    st.sampled_from(["debug", "info", "warning", "error", "critical"]),
    st.sampled_from(["json", "pretty"]),
    st.sampled_from(["debug", "info", "warning", "error"]),
)
def test_text_is_never_logged(fields: dict[str, Any], method: str, format_: str, level: str) -> None:
    """Drop text fields at every level and in every format, from structlog and from the standard library."""

    def emit() -> None:
        log = logs.logger().bind(text=MARKER)
        getattr(log, method)("said", text=MARKER, **fields)
        getattr(structlog.stdlib.get_logger("another"), method)("said", text=MARKER)
        record = {"text": MARKER, "msg_text": MARKER}
        getattr(logging.getLogger(logs.FASTSTREAM_LOGGER), method)("said", extra=record)

    assert MARKER not in logged(emit, log_format=format_, log_level=level)


def test_text_is_logged_on_demand() -> None:
    """Log texts with `DELTALOOM_LOG_TEXT=true`."""
    (line,) = lines(lambda: logs.logger().info("said", text=MARKER), log_text=True)
    assert line["text"] == MARKER


def test_level_is_that_of_the_setting() -> None:
    """Apply the configured level, and never show debug or info lines of other libraries at `warning`."""

    def emit() -> None:
        for method in ("debug", "info", "warning", "error"):
            getattr(logs.logger(), method)(method)
            getattr(logging.getLogger("another"), method)(method)

    assert [line["event"] for line in lines(emit, log_level="warning")] == [
        "warning",
        "warning",
        "error",
        "error",
    ]
    assert len(lines(emit, log_level="debug")) == 8


@pytest.mark.parametrize("name", ["deltaloom.faststream", "redis", "asyncio"])
def test_chatty_libraries_are_heard_at_debug_only(name: str) -> None:
    """Show info lines of these libraries at debug level only. FastStream writes two lines for each batch."""
    assert lines(lambda: logging.getLogger(name).info("received")) == []
    assert len(lines(lambda: logging.getLogger(name).warning("broken"))) == 1
    assert len(lines(lambda: logging.getLogger(name).info("received"), log_level="debug")) == 1


def test_a_second_configuration_replaces_the_first() -> None:
    """Replace the first configuration. Otherwise each line would be written twice."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure(Settings(log_format="json"), first)
    logs.configure(Settings(log_format="json"), second)
    logging.getLogger("another").warning("once")
    assert (first.getvalue(), len(second.getvalue().splitlines())) == ("", 1)


def _raise(text: str) -> None:
    """Raise an error while `text` is a local variable."""
    assert text
    message = "no text in here"
    raise ValueError(message)


def _log_exception() -> None:
    try:
        _raise(MARKER.lower().upper())  # computed, since a traceback shows the source line
    except ValueError:
        logs.logger().exception("ours")
        logging.getLogger("asyncio").exception("foreign")


def test_exception_in_json_is_one_line_with_its_traceback() -> None:
    """Write a traceback into one JSON field. Otherwise it would span several log lines."""
    ours, foreign = lines(_log_exception)
    assert ours["exception"].endswith("ValueError: no text in here")
    assert foreign["exception"].endswith("ValueError: no text in here")


@pytest.mark.parametrize(
    "format_",
    ["json", "pretty"],
)
def test_local_variables_are_not_logged(format_: str) -> None:
    """Leave local variables out of tracebacks.

    Otherwise the text held by a failing function would be logged.
    """
    written = logged(_log_exception, log_format=format_)
    assert "no text in here" in written
    assert MARKER not in written


def _log_validation_error() -> None:
    try:
        AssembledText.model_validate({"text": MARKER, "kind": MARKER})
    except ValidationError:
        logs.logger().exception("ours")


@pytest.mark.parametrize("format_", ["json", "pretty"])
def test_rejected_values_are_not_logged(format_: str) -> None:
    """Leave rejected input out of validation errors. Otherwise the text would be logged."""
    assert MARKER not in logged(_log_validation_error, log_format=format_)


def test_a_line_that_cannot_be_written_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Continue if a log line cannot be written. Otherwise a full disk would fail the batch."""

    class Full(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    logs.configure(Settings(log_format="json"), Full())
    logs.logger().warning("refusal opened")
    logging.getLogger("another").warning("plain")
    assert "another" in capsys.readouterr().err  # the standard library reports the failed write on stderr


def test_cancellation_is_not_logged_as_an_error() -> None:
    """Do not log cancellation as an error. FastStream logs any exception that ends its reader."""

    def emit(error: BaseException) -> None:
        logging.getLogger(logs.FASTSTREAM_LOGGER).error("failed", exc_info=error)

    assert lines(lambda: emit(asyncio.CancelledError())) == []
    assert len(lines(lambda: emit(OSError()))) == 1


def _storm(lines: int) -> None:
    for n in range(lines):
        logs.logger().warning("refusal opened", response=n)
        logging.getLogger("redis").warning("%s is broken", n)
    logs.logger().error("batch failed")


def test_a_storm_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write some lines of a storm and the number of the others, with what is bound in the process."""
    monkeypatch.setattr(logs, "LogBudget", partial(LogBudget, clock=lambda: 0.0))

    def emit() -> None:
        with logs.bound(first_entry="1-0"):
            _storm(50)
        logs.finish()

    with logs.bound(process=3):
        written = lines(emit, log_burst=2)
    assert [line["event"] for line in written] == [
        *("refusal opened", "0 is broken", "refusal opened", "1 is broken", "batch failed"),
        *("log lines left out", "log lines left out"),
    ]
    for line in written:
        del line["timestamp"]
    assert written[-2:] == [
        {
            "event": "log lines left out",
            "level": "warning",
            "logger": "deltaloom",
            "process": 3,
            "of_event": event,
            "of_level": "warning",
            "lines": 48,
            "seconds": 0.0,
        }
        for event in ("refusal opened", "redis")
    ]


def test_left_out_errors_are_reported_as_an_error() -> None:
    """Report left out errors as an error, which is written at every level."""

    def emit() -> None:
        for _ in range(5):
            logs.logger().error("batch failed")
        logs.finish()

    *_, last = lines(emit, log_burst=1, log_level="error")
    assert (last["event"], last["level"], last["lines"]) == ("log lines left out", "error", 3)


async def test_the_report_comes_without_a_further_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report at the end of the window, also if the storm was the last that happened."""
    monkeypatch.setattr("service.log_budget.WINDOW", 1.0)  # the storm has to fit into it
    stream = io.StringIO()
    logs.configure(Settings(log_format="json", log_burst=1), stream)
    _storm(2)
    await wait_until(lambda: stream.getvalue().count("log lines left out") == 2)


def test_output_has_no_limit() -> None:
    """Write all lines that are an output."""

    def emit() -> None:
        for _ in range(5):
            logs.unlimited().info("an alert")

    written = lines(emit, log_burst=1)
    assert [line["event"] for line in written] == ["an alert"] * 5
    assert "_unlimited" not in written[0]


def test_a_lack_of_memory_is_one_sentence() -> None:
    """A traceback of thousands of characters would hide the cause, which is the same wherever it strikes."""

    def fail() -> None:
        logs.logger().error("batch failed", exc_info=MemoryError())

    (line,) = lines(fail)
    assert line["exception"].startswith("MemoryError: give this process more memory")


def test_a_frequent_warning_leaves_room_for_others() -> None:
    """Remember at most five lines of one event, so that refusals do not push out the errors."""

    def warn() -> None:
        logs.logger().error("batch failed")
        for _ in range(50):
            logs.logger().warning("refusal opened")

    lines(warn)
    events = [each["event"] for each in logs.latest_warnings()]
    assert events[-6:] == ["batch failed", *["refusal opened"] * 5]


def test_threads_may_warn_at_the_same_time() -> None:
    """Otherwise a warning could fail what it warns about, such as the decoding of a large entry."""
    interval = sys.getswitchinterval()

    def warn(number: int) -> None:
        for event in range(1000):
            logs.logger().warning(f"event {(event + number) % 30}")

    def warn_in_threads() -> None:
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor() as threads:
                for warning in [threads.submit(warn, number) for number in range(4)]:
                    warning.result()
        finally:
            sys.setswitchinterval(interval)

    lines(warn_in_threads, log_burst=10_000)
    assert len(logs.latest_warnings()) == 20
