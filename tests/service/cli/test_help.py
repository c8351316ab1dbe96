"""The help: what one sees first."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from service.cli import app
from tests.service.cli.command import deltaloom, environment

COMMANDS = (
    (),
    ("demo",),
    ("run",),
    ("publish",),
    ("tail",),
    ("show",),
    ("dead-letters",),
    ("dead-letters", "list"),
    ("dead-letters", "show"),
    ("dead-letters", "replay"),
    ("dead-letters", "drop"),
    ("alerts",),
    ("alerts", "check"),
    ("alerts", "explain"),
    ("alerts", "rates"),
    ("alerts", "test"),
    ("alerts", "undelivered"),
    ("alerts", "resend"),
    ("alerts", "enable"),
    ("relay",),
    ("worker",),
    ("check",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    """A newcomer would have to guess how a sub-command is called."""
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    assert (
        f"$ deltaloom {' '.join(command)}".rstrip() in " ".join(shown.output.split())
        or "deltaloom" in (shown.output.rpartition("Examples")[2])
    )


def test_all_commands_are_tested() -> None:
    """A new sub-command would go without its example."""
    names = {info.name for info in app.registered_commands} | {info.name for info in app.registered_groups}
    assert names == {command[0] for command in COMMANDS if command}


def test_help_imports_little() -> None:
    """`--help` would take as long as starting a worker."""
    code = (
        "import service.cli, sys; print([m for m in ('faststream', 'redis', 'uvloop') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert shown.stdout == "[]\n"


def test_a_process_without_arguments_shows_the_help() -> None:
    """`deltaloom` alone would say nothing, or fail with a traceback."""
    shown = deltaloom()
    assert "dead-letters" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stderr


def test_wrong_settings_are_one_line_each() -> None:
    """An operator would have to read a traceback to learn which variable is wrong."""
    env = environment("http://x", DELTALOOM_BATCH_SIZE="0", DELTALOOM_LOG_LEVEL="loud")
    for command in (("worker",), ("check",), ("tail", "alerts"), ("show", "x"), ("run",)):
        shown = deltaloom(*command, env=env)
        assert shown.returncode == 2, shown
        lines = shown.stderr.splitlines()
        assert [line.partition("=")[0] for line in sorted(lines)] == [
            "DELTALOOM_BATCH_SIZE",
            "DELTALOOM_LOG_LEVEL",
            "REDIS_URL",
        ], shown.stderr


def test_an_unknown_handler_ends_the_worker() -> None:
    """The worker would run without the handler that its operator asked for."""
    shown = deltaloom("worker", env=environment(DELTALOOM_HANDLERS="refusal,nix"))
    assert (shown.returncode, len(shown.stderr.splitlines())) == (2, 1)
    assert "DELTALOOM_HANDLERS='refusal,nix'" in shown.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("tail", "alerts"),
        ("show", "resp_1"),
        ("publish", "-"),
        ("dead-letters", "list"),
        ("dead-letters", "replay", "--all"),
    ],
    ids=" ".join,
)
def test_no_server(command: tuple[str, ...]) -> None:
    """A server that is not there would end in a traceback, or show its password."""
    shown = deltaloom(*command, env=environment("redis://:s3cret@127.0.0.1:1/0"))
    assert (shown.returncode, shown.stdout) == (1, "")
    (line,) = shown.stderr.splitlines()
    assert line.startswith("no server answers at redis://127.0.0.1:1/0 (Connection refused)")
    assert "s3cret" not in line


def test_check_without_a_server() -> None:
    """The image's health check would call a worker healthy that cannot reach its server."""
    shown = deltaloom("check", env=environment("redis://127.0.0.1:1"))
    assert shown.returncode == 1
    assert "FAIL" in shown.stdout
