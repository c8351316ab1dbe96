"""Tests of `deltaloom tail` on a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from deltaloom import AssembledText, DeadLetter, ModerationAlert, RefusalRate, StreamNames
from embedded.embedded_server import EmbeddedServer
from embedded.free_ports import free_port
from tests.service.cli.command import COMMAND, TIMEOUT, deltaloom, environment, running
from tests.streams import add, letter_fields
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PART: dict[str, Any] = {
    "response_id": "resp_1",
    "item_id": "msg_1",
    "output_index": 0,
    "content_index": 1,
    "model": "gpt-x",
    "tenant": "acme",
}
TEXT = AssembledText(
    id="text_1",
    kind="refusal",
    text="No.\x1b[2J\nNever.",
    status="completed",
    integrity="verified",
    delta_count=2,
    duplicate_count=1,
    started_at=NOW,
    finished_at=NOW,
    **PART,
)
ALERT = ModerationAlert(
    type="deltaloom.refusal.opened",
    id="opened_1",
    kind="refusal",
    text="No.",
    severity="critical",
    raised_at=NOW,
    **PART,
)
LETTER = DeadLetter(
    source="deltaloom",
    reason="malformed_json",
    error="not JSON at character 0",
    stream="deltaloom:deltas",
    entry_id="1-0",
    deliveries=1,
    failed_at=NOW,
    entry='{"event": "{"}',
)
EVENTS = [
    {
        "type": "response.refusal.delta",
        "delta": "No\x07",
        "sequence_number": 5,
        "output_index": 0,
        "content_index": 1,
    },
    {"type": "keepalive"},
]


@pytest.fixture
def env(redis_url: str, prefix: str) -> dict[str, str]:
    """Return the environment of the command."""
    return environment(redis_url, prefix)


@pytest.fixture
async def written(redis: Redis, prefix: str) -> None:
    """Write one entry to every stream."""
    names = StreamNames(prefix)
    await redis.xadd(names.assembled, {"__data__": TEXT.model_dump_json(), "id": TEXT.id})
    await redis.xadd(names.alerts, {"__data__": ALERT.model_dump_json(), "id": ALERT.id})
    await add(redis, names.dead_letters, letter_fields(LETTER, prefix))
    await redis.xadd(names.deltas, {"event": json.dumps(EVENTS), "response_id": "resp_1", "raw": b"\xff"})


def shown(env: dict[str, str], *arguments: str) -> str:
    """Return the output of `tail` for one existing entry."""
    done = deltaloom("tail", *arguments, "--from-start", "--count", "1", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.usefixtures("written")
def test_pretty(env: dict[str, str]) -> None:
    """The readable form shows text, state and context, and escapes control characters of the model."""
    assert (
        shown(env, "assembled")
        .splitlines()[0]
        .endswith(" · refusal · completed · verified · 2 deltas · 1 repeat")
    )
    assert shown(env, "assembled").splitlines()[1:] == [
        "  resp_1 · msg_1 · 0:1 · gpt-x · tenant acme",
        "  No.\\x1b[2J",
        "  Never.",
        "",
    ]
    assert "critical · refusal opened" in shown(env, "alerts")
    assert "malformed_json" in shown(env, "dead-letters")
    assert "not JSON at character 0" in shown(env, "dead-letters")
    deltas = shown(env, "deltas").splitlines()
    assert deltas[0].endswith(" · resp_1")
    assert deltas[1:] == ["  response.refusal.delta · #5 · 0:1 · “No\\x07”", "  keepalive"]


async def test_pretty_without_a_text(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """An alert without a part shows its severity and numbers, and no empty position such as `None:None`."""
    names = StreamNames(prefix)
    rate = RefusalRate(
        by="model",
        name="gpt-x",
        since=NOW,
        until=NOW,
        responses=200,
        refused=50,
        baseline_since=NOW,
        baseline_responses=2400,
        baseline_refused=12,
        score=21.5,
    )
    spike = ModerationAlert(
        type="deltaloom.refusal.spike",
        id="spike_1",
        text="",
        model="gpt-x",
        severity="critical",
        rate=rate,
        raised_at=NOW,
    )
    blocked = ModerationAlert(
        type="deltaloom.response.blocked",
        id="blocked_1",
        text="",
        response_id="resp_1",
        severity="warning",
        status="failed",
        reason="cyber_policy",
        raised_at=NOW,
    )
    for alert in (spike, blocked):
        await redis.xadd(names.alerts, {"__data__": alert.model_dump_json(), "id": alert.id})
    done = deltaloom("tail", "alerts", "--from-start", "--count", "2", env=env)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("critical · refusal spike")
    assert lines[1:4] == ["  gpt-x", "  50 of 200 refused (25.0%), before 12 of 2,400 (0.5%)", ""]
    assert lines[4].endswith("warning · response blocked · failed · cyber_policy")
    assert lines[5:] == ["  resp_1", ""]


@pytest.mark.usefixtures("written")
def test_json(env: dict[str, str], prefix: str) -> None:
    """`--json` prints each entry as its message, which a program can parse."""
    assert AssembledText.model_validate_json(shown(env, "assembled", "--json")) == TEXT
    assert ModerationAlert.model_validate_json(shown(env, "alerts", "--json")) == ALERT
    letter = json.loads(shown(env, "dead-letters", "--json"))
    assert letter.pop("id").endswith("-0")
    assert DeadLetter.model_validate(letter) == LETTER.model_copy(update={"source": prefix})
    entry = json.loads(shown(env, "deltas", "--json"))
    assert json.loads(entry["fields"]["event"]) == EVENTS
    assert entry["fields"]["raw"] == {"base64": "/w=="}


async def test_from_now_until_ctrl_c(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`tail` prints only new entries without `--from-start`, and Ctrl-C ends it without a traceback."""
    names = StreamNames(prefix)
    await redis.xadd(names.alerts, {"__data__": '"past"'})
    with running("tail", "alerts", "--json", env=env) as tail:

        async def seen() -> bool:
            await redis.xadd(names.alerts, {"__data__": '"new"'})
            return '"new"' in tail.stdout

        await wait_until(seen, TIMEOUT, message="the new alert is shown")
        assert tail.end(signal.SIGINT) == 0
        assert set(tail.stdout.splitlines()) == {'"new"'}
        assert tail.stderr == ""


async def test_across_a_restart_of_the_server(tmp_path: Path) -> None:
    """`tail` waits for a server that restarts, and goes on without loss or repeats."""
    port = free_port()
    with EmbeddedServer(tmp_path, port=port) as server:
        url = server.url
        env = environment(url)
        with running("tail", "alerts", "--json", "--from-start", env=env) as tail:
            async with Redis.from_url(url) as client:
                await client.xadd("deltaloom:alerts", {"__data__": '"before"'})
                await wait_until(lambda: "before" in tail.stdout, TIMEOUT)
            server.__exit__(None, None, None)
            await wait_until(lambda: "the server is unavailable" in tail.stderr, TIMEOUT)
            with EmbeddedServer(tmp_path, port=port):
                async with Redis.from_url(url) as client:
                    await client.xadd("deltaloom:alerts", {"__data__": '"after"'})
                await wait_until(lambda: "after" in tail.stdout, TIMEOUT)
                assert tail.end(signal.SIGINT) == 0
            assert tail.stdout.splitlines() == ['"before"', '"after"']
            assert len(tail.stderr.splitlines()) == 1


async def test_entries_of_others_are_passed_over(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """An entry of another program is skipped with a warning."""
    names = StreamNames(prefix)
    for stream in ("assembled", "alerts", "dead-letters"):
        await redis.xadd(names.name(stream), {"x": "y"})
        for form in ([], ["--json"]):
            done = deltaloom("tail", stream, "--from-start", "--count", "1", *form, env=env)
            assert (done.returncode, done.stdout) == (0, "")
            assert "was not written by deltaloom" in done.stderr


@pytest.mark.usefixtures("written")
async def test_a_closed_pipe_ends_it(redis: Redis, prefix: str, env: dict[str, str]) -> None:
    """`deltaloom tail … | head -1` ends without a traceback."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "tail",
        "assembled",
        "--json",
        "--from-start",
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout

    async def ended() -> bool:
        await redis.xadd(StreamNames(prefix).assembled, {"__data__": TEXT.model_dump_json()})
        return process.returncode is not None

    try:
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way
        await wait_until(ended, TIMEOUT, message="it ends")
    finally:
        if process.returncode is None:
            process.kill()
        _, errors = await process.communicate()
    assert b"Traceback" not in errors


@pytest.mark.usefixtures("written")
def test_colour_on_a_terminal_but_not_with_no_color(env: dict[str, str]) -> None:
    """Severity is coloured on a terminal, unless `NO_COLOR` is set."""
    outputs = []
    for more in ({}, {"NO_COLOR": "1"}):
        ours, theirs = pty.openpty()
        subprocess.run(
            [*COMMAND, "tail", "alerts", "--from-start", "--count", "1"],
            env={**env, "TERM": "xterm-256color", **more},
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=True,
        )
        os.close(theirs)
        outputs.append(os.read(ours, 100_000))
        os.close(ours)
    coloured, plain = outputs
    assert b"\x1b[1;37;41mcritical" in coloured
    assert b"41m" not in plain
