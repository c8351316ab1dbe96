"""Privacy of the commands that send alerts: the log destination writes texts only if that is allowed."""

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

with_and_without_texts = pytest.mark.parametrize("allowed", [False, True])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return an alerts file that routes everything to the log, with full texts."""
    path = tmp_path / "alerts.toml"
    path.write_text(CONFIG)
    return path


@with_and_without_texts
def test_test_alert(file: Path, allowed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """`alerts test` writes the same line as the relay would: the text only with `DELTALOOM_LOG_TEXT`."""
    env = environment(DELTALOOM_LOG_TEXT=str(allowed))
    done = deltaloom("alerts", "test", "here", "--config", str(file), env=env)
    assert done.stdout == "here took it: written\n"
    assert "[TEST] A model refuses" in done.stderr
    assert (TEXT in done.stderr) is allowed


@pytest.mark.parametrize("phase", PHASES.values())
def test_test_alert_of_every_phase(file: Path, phase: str) -> None:
    """`alerts test --phase` sends an example of each alert kind, so that a new route can be tried."""
    env = environment(DELTALOOM_LOG_FORMAT="json")
    done = deltaloom("alerts", "test", "here", "--phase", phase, "--config", str(file), env=env)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stderr.splitlines()[-1])
    assert PHASES[line["type"]] == phase
    assert line["event"].startswith("[TEST] ")


@with_and_without_texts
async def test_resent_alert(
    redis: Redis,
    redis_url: str,
    prefix: str,
    file: Path,
    allowed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """`alerts resend` writes texts of users to the terminal only with `DELTALOOM_LOG_TEXT`."""
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
