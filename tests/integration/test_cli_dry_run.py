"""`deltaloom publish --dry-run` says what a real worker writes, without a server."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import demo
from deltaloom import StreamNames
from tests.client.dialects.streams import SAMPLES, body_of, message
from tests.docs.pages import ROOT, Page
from tests.service.cli.command import deltaloom, environment
from tests.streams import entries
from tests.waiting import wait_until
from tests.workers import settled, workers_in_process

if TYPE_CHECKING:
    from redis.asyncio import Redis

NOWHERE = environment("redis://127.0.0.1:1", "dry")
"""Environment of a command that has no server."""

STREAMS = sorted((Path(demo.__file__).parent / "streams").glob("*.jsonl"))
TIMES = ("raised_at", "started_at", "finished_at", "source", "failed_at", "entry_id", "stream")
REFUSAL = (
    b'{"type":"response.created","response":{"id":"resp_1","model":"gpt-x"}}\n'
    b'{"type":"response.refusal.delta","delta":"No canary.","output_index":0,"content_index":0}\n'
    b'{"type":"response.completed","response":{}}\n'
)


CONTRADICTED = "\n".join(
    json.dumps(event)
    for event in (
        {"type": "response.refusal.delta", "delta": "No.", "output_index": 0, "content_index": 0},
        {"type": "response.refusal.done", "refusal": "No.", "output_index": 0, "content_index": 0},
        *[{"type": "keepalive"}] * 5000,
        {"type": "response.refusal.delta", "delta": " late", "output_index": 0, "content_index": 0},
        {"type": "response.refusal.done", "refusal": "Yes.", "output_index": 0, "content_index": 0},
        {"type": "deltaloom.response.fallback", "from_model": "a"},
        {"type": "response.completed", "response": {}},
        {"type": "response.completed", "response": {}},
    )
).encode()
"""A response with another text, many batches after the first one."""


def dry(*arguments: str, stdin: bytes = b"", code: int = 0) -> list[dict[str, Any]]:
    """Return the lines of a dry run as JSON."""
    done = deltaloom("publish", *arguments, "--dry-run", "--json", "--text", env=NOWHERE, stdin=stdin)
    assert (done.returncode, done.stderr) == (code, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def without_times(message: dict[str, Any]) -> str:
    """Return a message without the values that depend on times and batches."""
    if message["type"].endswith(".opened"):
        message["text"] = None
    return json.dumps({name: value for name, value in message.items() if name not in TIMES}, sort_keys=True)


async def written(redis: Redis, prefix: str) -> list[str]:
    """Return all texts and alerts of a worker."""
    names = StreamNames(prefix)
    found = [await entries(redis, name) for name in (names.assembled, names.alerts)]
    return [without_times(json.loads(fields[b"__data__"])) for some in found for _, fields in some]


async def test_it_is_what_a_worker_writes(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Print the very texts and alerts that a worker writes for the same events."""
    files = list(STREAMS)
    for number, sample in enumerate(SAMPLES.values()):
        files.append(tmp_path / f"sample-{number}")
        files[-1].write_bytes(body_of(sample))
    files.append(tmp_path / "contradicted")
    files[-1].write_bytes(CONTRADICTED)
    env = environment(redis_url, prefix)
    options = [(str(file), "--response-id", f"resp_{file.stem}", "--coalesce", "7") for file in files]
    for each in options:  # only a fixed id can be compared
        done = await asyncio.to_thread(partial(deltaloom, "publish", *each, env=env))
        assert done.returncode == 0, done.stderr
    async with workers_in_process(redis_url, prefix, idle_timeout=0.5, sweep_interval=0.1):

        async def is_over() -> bool:
            still_open: int = await redis.zcard(StreamNames(prefix).name("open"))
            return await settled(redis, prefix) and not still_open

        await wait_until(is_over, 60)
    found = await written(redis, prefix)
    lines = [line for each in options for line in await asyncio.to_thread(partial(dry, *each))]
    dry_lines = [without_times(line["message"]) for line in lines if line["what"] in {"text", "alert"}]
    assert sorted(dry_lines) == sorted(found)
    assert len(found) > 60


def test_lines_for_people() -> None:
    """Show kinds, status, integrity and alerts, but the texts only if they are asked for."""
    done = deltaloom("publish", "-", "--dry-run", env=NOWHERE, stdin=REFUSAL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "resp_1",
        "  gpt-x",
        "  ALERT · refusal opened · warning",
        "  refusal · completed · unverified · 1 delta · 10 characters · 0:0",
        "  ALERT · refusal finished · warning · completed · unverified",
        "  ended · completed",
        "",
        "3 events · not translated · 1 response · 1 text · 2 alerts · 0 dead letters",
        "not rebuilt by these settings: output_text; see DELTALOOM_HANDLERS",
        "nothing was published",
    ]
    with_text = deltaloom("publish", "-", "--dry-run", "--text", env=NOWHERE, stdin=REFUSAL)
    assert with_text.stdout.count("    No canary.") == 3
    as_json = deltaloom("publish", "-", "--dry-run", "--json", env=NOWHERE, stdin=REFUSAL)
    assert "canary" not in done.stdout + as_json.stdout


def test_the_page_shows_this_output() -> None:
    """Show on the page what the command prints."""
    done = deltaloom("publish", "-", "--dry-run", env=NOWHERE, stdin=body_of(SAMPLES["chat refusal"]))
    (block,) = [each.text for each in Page(ROOT / "docs/dialects.md").blocks if "--dry-run" in each.text]
    assert done.stdout.splitlines()[1:] == block.splitlines()[2:]


def test_what_is_left_out_is_told_with_its_reason() -> None:
    """Tell dead letters, odd fields, events without effect and parts of the translation that are missing."""
    odd = (
        b'{"type":\n{"type":"keepalive"}\n'
        b'{"type":"response.refusal.delta","delta":"N","output_index":0,"content_index":0,"item_id":5}\n'
    )
    *lines, summary = dry("-", "--response-id", "r", stdin=odd)
    assert [each["message"]["reason"] for each in lines if each["what"] == "dead_letter"] == [
        "malformed_json"
    ]
    shown = deltaloom(
        "publish", "-", "--dry-run", "--text", "--response-id", "r", env=NOWHERE, stdin=odd
    ).stdout
    assert "DEAD LETTER" in shown
    assert "malformed_json" in shown
    assert "left out: field item_id of response.refusal.delta: not valid" in shown
    assert "without effect: keepalive (1)" in shown
    assert (summary["dead_letters"], summary["without_effect"]) == (1, {"keepalive": 1})
    assert summary["left_out"] == {"field item_id of response.refusal.delta: not valid": 1}
    chat = body_of(SAMPLES["chat refusal"])
    summary = dry("-", stdin=chat + b"data: {\n\n")[-1]
    assert (summary["translated_from"], summary["left_out"]) == (
        ["openai.chat"],
        {"message that is damaged JSON": 1},
    )
    summary = dry("-", "--response-id", "r", stdin=chat * 2)[-1]
    assert summary["left_out"] == {"responses after the first: --response-id names only one": 1}
    assert summary["texts"] == 1


def test_a_response_without_an_end_is_given_up() -> None:
    """Tell what becomes of a response that is cut off."""
    lines = dry("-", stdin=REFUSAL.rsplit(b"\n", 2)[0])
    text = next(line["message"] for line in lines if line["what"] == "text")
    assert (text["status"], text["reason"]) == ("abandoned", "idle_timeout")
    end = next(line for line in lines if line["what"] == "response")
    assert (end["status"], end["reason"]) == ("abandoned", "idle_timeout")


def test_limits_of_a_part_are_kept() -> None:
    """Make a dead letter of what exceeds the limits of a part or the number of parts."""
    deltas = [
        {"type": "response.refusal.delta", "delta": "x" * 600, "output_index": n // 2, "content_index": 0}
        for n in range(6)
    ]
    env = {**NOWHERE, "DELTALOOM_MAX_PART_BYTES": "1024", "DELTALOOM_MAX_RESPONSE_PARTS": "2"}
    body = "\n".join(map(json.dumps, deltas)).encode()
    done = deltaloom("publish", "-", "--dry-run", "--json", env=env, stdin=body)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    reasons = [line["message"]["reason"] for line in lines if line["what"] == "dead_letter"]
    assert set(reasons) == {"oversized"}
    assert lines[-1]["texts"] <= 2


@pytest.mark.parametrize(
    ("options", "message_part"),
    [
        (("--text",), "--text and --json need --dry-run"),
        (("--json",), "--text and --json need --dry-run"),
        (("--dry-run", "--rate", "5"), "--dry-run has no --rate"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], message_part: str) -> None:
    """Refuse options without effect."""
    done = deltaloom("publish", "-", *options, env=NOWHERE, stdin=REFUSAL)
    assert done.returncode == 2
    assert message_part in " ".join(done.stderr.replace("│", " ").split())


def test_no_events_and_a_line_that_is_too_long_fail() -> None:
    """Fail as `publish` does."""
    assert deltaloom("publish", "-", "--dry-run", env=NOWHERE).returncode == 1
    env = {**NOWHERE, "DELTALOOM_MAX_EVENT_BYTES": "1024"}
    done = deltaloom("publish", "-", "--dry-run", env=env, stdin=b'{"type":"' + b"x" * 100_000)
    assert done.returncode == 1
    assert "more than an entry may have" in done.stderr


def test_a_fallback_is_told_in_words() -> None:
    """Name both models of a fallback."""
    fallback = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}, "trigger": "refusal"}
    start = {"type": "content_block_start", "index": 0, "content_block": fallback}
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in message([start]))
    done = deltaloom("publish", "-", "--dry-run", env=NOWHERE, stdin=body)
    assert (
        "ALERT · response fallback · warning · completed · b answered in place of a: refusal" in done.stdout
    )
