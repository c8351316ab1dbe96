"""Logs: one format for everyone's lines, and nobody's words in them."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deltaloom.messages import AssembledText
from service import logs
from service.settings import Settings
from tests.hidden import NAME, hidden_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARKER = "ZQXMARKERXQZ"
"""Stands for a text."""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The tests that follow would log to a stream of ours."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("deltaloom.faststream", "redis", "asyncio")}
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)
    structlog.reset_defaults()


def logged(say: Callable[[], object], stream: io.StringIO | None = None, **settings: Any) -> str:
    """What is written when `say` logs."""
    stream = io.StringIO() if stream is None else stream
    logs.configure(Settings(**settings), stream)
    say()
    return stream.getvalue()


def lines(say: Callable[[], object], **settings: Any) -> list[dict[str, Any]]:
    """The lines as JSON."""
    return [json.loads(line) for line in logged(say, log_format="json", **settings).splitlines()]


def test_json_line_has_all_that_was_bound() -> None:
    """Whoever looks for a response in the logs would not find its lines."""
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
    """A log reader would need two formats."""

    def say() -> None:
        extra = {"channel": "deltas", "message_id": "1-0", "other": MARKER}
        logging.getLogger(logs.FASTSTREAM_LOGGER).error("failed: %s", "x", extra=extra)
        logging.getLogger("another").warning("plain")

    first, second = lines(say)
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
    """A log reader would take the rest of a line for another one."""
    written = logged(lambda: logs.logger().info("a\nb", reason="c\nd"), log_format=format_)
    assert len(written.splitlines()) == 1


@pytest.mark.parametrize("format_", ["json", "pretty"])
def test_nothing_hidden_reaches_a_log(format_: str) -> None:
    """An id could retitle the terminal that shows the log, forge a line of it, or look like another id."""

    def say() -> None:
        values = {"response": NAME, "blank": f"{NAME} {NAME}", "several": [NAME], "counted": {NAME: 1}}
        logs.logger().warning(f"event {NAME}", **values, half="\ud83d")
        logging.getLogger("another").warning("%s", NAME)
        try:
            _raise(NAME)
        except ValueError as error:
            error.add_note(NAME)
            logs.logger().exception("failed")

    written = logged(say, log_format=format_)
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
    """A person would read JSON, or a machine colours."""
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
    """What a person or a model said would be in the logs, at some level or in some format."""

    def say() -> None:
        log = logs.logger().bind(text=MARKER)
        getattr(log, method)("said", text=MARKER, **fields)
        getattr(structlog.stdlib.get_logger("another"), method)("said", text=MARKER)
        record = {"text": MARKER, "msg_text": MARKER}
        getattr(logging.getLogger(logs.FASTSTREAM_LOGGER), method)("said", extra=record)

    assert MARKER not in logged(say, log_format=format_, log_level=level)


def test_text_is_logged_on_demand() -> None:
    """`DELTALOOM_LOG_TEXT=true` would have no effect."""
    (line,) = lines(lambda: logs.logger().info("said", text=MARKER), log_text=True)
    assert line["text"] == MARKER


def test_level_is_that_of_the_setting() -> None:
    """The log would be too loud, or silent."""

    def say() -> None:
        for method in ("debug", "info", "warning", "error"):
            getattr(logs.logger(), method)(method)
            getattr(logging.getLogger("another"), method)(method)

    assert [line["event"] for line in lines(say, log_level="warning")] == [
        "warning",
        "warning",
        "error",
        "error",
    ]
    assert len(lines(say, log_level="debug")) == 8


@pytest.mark.parametrize("name", ["deltaloom.faststream", "redis", "asyncio"])
def test_chatty_libraries_are_heard_at_debug_only(name: str) -> None:
    """FastStream would write two lines for each batch."""
    assert lines(lambda: logging.getLogger(name).info("received")) == []
    assert len(lines(lambda: logging.getLogger(name).warning("broken"))) == 1
    assert len(lines(lambda: logging.getLogger(name).info("received"), log_level="debug")) == 1


def test_a_second_configuration_replaces_the_first() -> None:
    """Every line would be written twice."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure(Settings(log_format="json"), first)
    logs.configure(Settings(log_format="json"), second)
    logging.getLogger("another").warning("once")
    assert (first.getvalue(), len(second.getvalue().splitlines())) == ("", 1)


def _raise(text: str) -> None:
    """Raise an error, with `text` among the local variables."""
    assert text
    message = "no text in here"
    raise ValueError(message)


def _say_exception() -> None:
    try:
        _raise(MARKER.lower().upper())  # not as it stands here, since a traceback shows the line
    except ValueError:
        logs.logger().exception("ours")
        logging.getLogger("asyncio").exception("foreign")


def test_exception_in_json_is_one_line_with_its_traceback() -> None:
    """A bug could not be found, or its traceback would tear the log apart."""
    ours, foreign = lines(_say_exception)
    assert ours["exception"].endswith("ValueError: no text in here")
    assert foreign["exception"].endswith("ValueError: no text in here")


@pytest.mark.parametrize(
    "format_",
    ["json", "pretty"],
)
def test_local_variables_are_not_logged(format_: str) -> None:
    """The text in the hands of whatever raised would be in the log."""
    written = logged(_say_exception, log_format=format_)
    assert "no text in here" in written
    assert MARKER not in written


def _say_validation_error() -> None:
    try:
        AssembledText.model_validate({"text": MARKER, "kind": MARKER})
    except ValidationError:
        logs.logger().exception("ours")


@pytest.mark.parametrize("format_", ["json", "pretty"])
def test_values_that_were_refused_are_not_logged(format_: str) -> None:
    """A bug in front of a model would put the text into the log."""
    assert MARKER not in logged(_say_validation_error, log_format=format_)


def test_a_line_that_cannot_be_written_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk behind the log, or a pipe that nobody reads, would fail the batch whose line it is."""

    class Full(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    logs.configure(Settings(log_format="json"), Full())
    logs.logger().warning("refusal opened")
    logging.getLogger("another").warning("plain")
    assert "another" in capsys.readouterr().err  # the standard library says so there


def test_what_is_cancelled_is_no_error() -> None:
    """A relay that lost its lease would write a traceback: FastStream logs whatever ends its reader."""

    def say(error: BaseException) -> None:
        logging.getLogger(logs.FASTSTREAM_LOGGER).error("failed", exc_info=error)

    assert lines(lambda: say(asyncio.CancelledError())) == []
    assert len(lines(lambda: say(OSError()))) == 1
