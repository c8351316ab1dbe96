"""Test programs that get an alert on standard input, and the meaning of their exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from deltaloom import ModerationAlert
from service.alerts.delivery import Outcome, Verdict
from service.alerts.destinations.command import CommandOptions
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.registry import create_destination
from tests.notifications import TEXT, alert, notification
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from service.alerts.delivery import Notification


async def ran(program: str, *arguments: str, sent: Notification | None = None, **table: Any) -> Outcome:
    """Run a Python program with the alert."""
    command = [sys.executable, "-c", program, *arguments]
    return await ran_command(command, sent=sent, **table)


async def ran_command(command: list[str], *, sent: Notification | None = None, **table: Any) -> Outcome:
    """Run a command with the alert."""
    options = CommandOptions.model_validate({"type": "command", "command": command, **table})
    environment = {**os.environ, "TOKEN": "hush-hush", "ANOTHER": "not handed on"}
    destination = create_destination("program", options, environment)
    outcome = await destination.deliver(sent or notification())
    await destination.aclose()
    return outcome


async def test_the_program_gets_the_alert_and_no_shell_reads_it(tmp_path: Path) -> None:
    """Pass the alert on standard input and the arguments without a shell, which could run a tenant's name."""
    sent = notification(alert(tenant="$(touch /tmp/x); `y` \N{SNOWMAN}"))
    argument = "$(echo shell) * ; &"
    program = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read() + sys.argv[2].encode())"
    outcome = await ran(program, str(tmp_path / "out"), argument, sent=sent)
    line, _, rest = (tmp_path / "out").read_text("utf-8").partition("\n")
    assert outcome == Outcome(Verdict.DELIVERED, "exit status 0")
    assert ModerationAlert.model_validate_json(line) == sent.alert
    assert json.loads(line)["delivery"]["id"] == sent.id
    assert rest == argument


async def test_only_listed_variables_are_passed(tmp_path: Path) -> None:
    """Pass only the listed environment variables. Otherwise programs would get all secrets."""
    program = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    await ran(program, str(tmp_path / "out"), environment=["TOKEN"])
    found = json.loads((tmp_path / "out").read_text("utf-8"))
    assert found["TOKEN"] == "hush-hush"  # noqa: S105 - made up for this test
    assert found.keys() - {"LC_CTYPE"} <= {"TOKEN", "PATH", "HOME", "LANG", "TZ"}


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("raise SystemExit(1)", Outcome(Verdict.RETRY, "exit status 1")),
        ("raise SystemExit(65)", Outcome(Verdict.REFUSED, "exit status 65")),
        ("raise SystemExit(69)", Outcome(Verdict.GONE, "exit status 69")),
        ("import os; os.kill(os.getpid(), 9)", Outcome(Verdict.RETRY, "exit status -9")),
        (
            "import os, sys; sys.exit('no luck with ' + os.environ['TOKEN'])",
            Outcome(Verdict.RETRY, "exit status 1: no luck with …"),
        ),
        (
            "import sys; sys.exit(sys.stdin.read())",
            Outcome(Verdict.RETRY, "exit status 1: (the answer repeats the text, and is left out)"),
        ),
        ("import sys; sys.stderr.write('x' * 10**6); sys.stdout.write('y' * 10**6)", None),
    ],
    ids=["1", "65", "69", "signal", "says a secret", "says the text", "says a lot"],
)
async def test_exit_codes_give_verdicts(program: str, outcome: Outcome | None) -> None:
    """Derive the verdict from the exit code, and keep secrets and texts out of the answer."""
    # The id is at the beginning of the program's input, and repeats the text.
    sent = notification(alert(id=TEXT))
    found = await ran(program, sent=sent, environment=["TOKEN"])
    if outcome is None:
        assert found.verdict is Verdict.DELIVERED
        assert len(found.answer) < 250
    else:
        assert found == outcome


async def test_a_program_that_does_not_read_is_no_trouble() -> None:
    """Accept a program that does not read its input. Otherwise a long alert would block on the pipe."""
    huge = notification(alert(text="x" * 1_000_000))
    assert (await ran("pass", sent=huge)).verdict is Verdict.DELIVERED


async def test_a_program_that_cannot_be_started_may_be_there_later(tmp_path: Path) -> None:
    """Retry a program that cannot be started, since a deployment may be in progress."""
    for command in ([str(tmp_path / "nothing")], [str(tmp_path)], ["a\0b"]):
        outcome = await ran_command(command)
        assert outcome.verdict is Verdict.RETRY
        assert outcome.answer.startswith("the program cannot be started: ")


def alive(pid: int) -> bool:
    """Return whether a process runs and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123 - reads a single known file
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


HANGS = 'sleep 60 & echo $! >"$0"; wait'
"""A shell script that writes the id of its child to the file `$0`. It does so soon, unlike Python."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
async def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    """Kill a program that hangs, with its children. Otherwise each attempt would leave one running."""
    outcome = await ran_command(["sh", "-c", HANGS, str(tmp_path / "child")], timeout=5)
    assert outcome == Outcome(Verdict.RETRY, "the program did not finish within 5 s")
    child = int((tmp_path / "child").read_text("utf-8"))
    await wait_until(lambda: not alive(child), message="the child has ended")


async def test_a_delivery_that_is_cancelled_ends_its_program(tmp_path: Path) -> None:
    """Kill the program of a cancelled delivery. Otherwise a stopped relay would leave programs behind."""
    hanging = ran_command(["sh", "-c", HANGS, str(tmp_path / "child")], timeout=60)
    running = asyncio.create_task(hanging)

    def started() -> str:
        return (tmp_path / "child").read_text("utf-8").strip() if (tmp_path / "child").exists() else ""

    child = int(await wait_until(started, message="the program runs"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await wait_until(lambda: not alive(child), message="the child has ended")


def test_a_missing_variable_is_refused() -> None:
    """Report a missing variable at start, not with the first alert."""
    options = CommandOptions(type="command", command=("true",), environment=("TOKEN",))
    with pytest.raises(DestinationError, match="TOKEN is not set"):
        create_destination("program", options, {})
