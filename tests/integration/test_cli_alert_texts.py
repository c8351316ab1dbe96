"""What the commands that send alerts write of a text, where the destination is the log."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from deltaloom import StreamNames
from service.alerts.phases import PHASES
from tests.notifications import TEXT, alert
from tests.service.cli.command import deltaloom, environment
from tests.streams import add

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

CONFIG = """
[destinations.here]
type = "log"
[[routes]]
to = "here"
text = "full"
"""

whether_allowed = pytest.mark.parametrize("allowed", [False, True])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Everything to the log, with its text."""
    path = tmp_path / "alerts.toml"
    path.write_text(CONFIG)
    return path


@whether_allowed
def test_test_alert(file: Path, allowed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What `alerts test` shows would not be what the relay logs."""
    env = environment(DELTALOOM_LOG_TEXT=str(allowed))
    done = deltaloom("alerts", "test", "here", "--config", str(file), env=env)
    assert done.stdout == "here took it: written\n"
    assert "[TEST] A model refuses" in done.stderr
    assert (TEXT in done.stderr) is allowed


@pytest.mark.parametrize("phase", PHASES.values())
def test_test_alert_of_every_phase(file: Path, phase: str) -> None:
    """Whoever sets up a route could not see what it brings."""
    env = environment(DELTALOOM_LOG_FORMAT="json")
    done = deltaloom("alerts", "test", "here", "--phase", phase, "--config", str(file), env=env)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stderr.splitlines()[-1])
    assert PHASES[line["type"]] == phase
    assert line["event"].startswith("[TEST] ")


@whether_allowed
async def test_resent_alert(
    redis: Redis,
    redis_url: str,
    prefix: str,
    file: Path,
    allowed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """People's words would stand in a terminal's log though nobody allowed it."""
    why = {"destination": "here", "reason": "expired", "answer": "503", "attempts": "9", "entry_id": "1-1"}
    when = {"failed_at": "2026-05-04T12:00:00Z"}
    stored = {"__data__": alert().model_dump_json(), **why, **when}
    await add(redis, StreamNames(prefix).undelivered, stored)
    env = environment(redis_url, prefix, DELTALOOM_LOG_TEXT=str(allowed))
    command = ("alerts", "resend", "--all", "--config", str(file))
    done = await asyncio.to_thread(deltaloom, *command, env=env)
    assert done.stdout == "1 delivered\n", done.stderr
    assert "A model refuses" in done.stderr
    assert (TEXT in done.stderr) is allowed
