"""Test the help texts and the errors of commands that cannot start."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, get_args

import pytest
from typer.main import get_group
from typer.testing import CliRunner

from deltaloom.messages import KnownDeadLetterReason
from service.cli import app
from service.cli.dead_letters import REASONS
from tests.service.cli.command import deltaloom, environment

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = (
    (),
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
    ("tap",),
    ("search",),
    ("export",),
    ("archive",),
    ("archive", "run"),
    ("archive", "migrate"),
    ("archive", "search"),
    ("archive", "show"),
    ("archive", "export"),
    ("archive", "hold"),
    ("archive", "release"),
    ("archive", "holds"),
    ("archive", "erase"),
    ("archive", "retain"),
    ("archive", "verify"),
    ("console",),
    ("worker",),
    ("check",),
    ("init",),
    ("drain",),
    ("remove",),
    ("health",),
    ("metrics",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    """Show an example in the help of each command."""
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    assert (
        f"$ deltaloom {' '.join(command)}".rstrip() in " ".join(shown.output.split())
        or "deltaloom" in (shown.output.rpartition("Examples")[2])
    )


def test_all_commands_are_tested() -> None:
    """Include all commands in the test above."""
    assert set(get_group(app).commands) == {command[0] for command in COMMANDS if command}


def test_help_imports_little() -> None:
    """Import no heavy library for `--help`. Otherwise it would take as long as starting a worker."""
    heavy = {"deltaloom", "faststream", "importlib.metadata", "pydantic", "redis", "rich", "uvloop"}
    code = f"import service.cli, sys; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert shown.stdout == "[]\n"


def test_all_reasons_of_dead_letters_are_known() -> None:
    """Accept each reason that the library defines, and no other."""
    assert get_args(KnownDeadLetterReason) == REASONS


def test_a_process_without_arguments_shows_the_help() -> None:
    """Show the help when called without arguments, without a traceback."""
    shown = deltaloom()
    assert "dead-letters" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stderr


def test_wrong_settings_are_one_line_each() -> None:
    """Report each invalid setting in one line, in all commands."""
    env = environment("http://x", DELTALOOM_BATCH_SIZE="0", DELTALOOM_LOG_LEVEL="loud")
    for command in (("worker",), ("check",), ("init",), ("tail", "alerts"), ("show", "x"), ("run",)):
        shown = deltaloom(*command, env=env)
        assert shown.returncode == 2, shown
        lines = shown.stderr.splitlines()
        assert [line.partition("=")[0] for line in sorted(lines)] == [
            "DELTALOOM_BATCH_SIZE",
            "DELTALOOM_LOG_LEVEL",
            "REDIS_URL",
        ], shown.stderr


def test_an_unknown_handler_ends_the_worker() -> None:
    """Exit with code 2 for an unknown handler. Otherwise the worker would run without it."""
    shown = deltaloom("worker", env=environment(DELTALOOM_HANDLERS="refusal,nix"))
    assert (shown.returncode, len(shown.stderr.splitlines())) == (2, 1)
    assert "DELTALOOM_HANDLERS='refusal,nix'" in shown.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("tail", "alerts"),
        ("show", "resp_1"),
        ("publish", "-"),
        ("init",),
        ("dead-letters", "list"),
        ("dead-letters", "replay", "--all"),
    ],
    ids=" ".join,
)
def test_no_server(command: tuple[str, ...]) -> None:
    """Report an unreachable server in one line, without its password."""
    shown = deltaloom(*command, env=environment("redis://:s3cret@127.0.0.1:1/0"))
    assert (shown.returncode, shown.stdout) == (1, "")
    (line,) = shown.stderr.splitlines()
    assert line.startswith("no server answers at redis://127.0.0.1:1/0 (Connection refused)")
    assert "s3cret" not in line


def test_check_without_a_server() -> None:
    """Fail if the server is unreachable, since the image's health check uses this command."""
    shown = deltaloom("check", env=environment("redis://127.0.0.1:1"))
    assert shown.returncode == 1
    assert "FAIL" in shown.stdout


def test_the_demo_that_moved_is_pointed_to() -> None:
    """Say where the demo is now. Otherwise a reader of an older page would not find it."""
    shown = deltaloom("demo", "--pace", "2")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "make demo" in shown.stderr


def test_health_is_a_command_like_the_others(tmp_path: Path) -> None:
    """Exit with 1 if no process here has a heartbeat, also where the short way of the image is not taken."""
    missing = str(tmp_path / "heartbeat")
    done = deltaloom("health", env={"DELTALOOM_HEARTBEAT_FILE": missing})
    assert done.returncode == 1
    assert missing in done.stdout
