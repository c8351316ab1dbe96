"""Run every example of the help texts exactly as written."""

from __future__ import annotations

import json
import re
import shlex
import signal
from typing import TYPE_CHECKING, Any

import pytest
from rich.text import Text

from deltaloom import StreamNames
from handlers.core.identity import EntryId
from service.cli import check, dead_letters, init, publish, run, show, tail, worker
from service.cli.help_text import PROMPT
from service.ports.outbox import EntryRef
from tests.client.dialects.streams import SAMPLES, body_of
from tests.relays import ended
from tests.service.cli.command import TIMEOUT, deltaloom, environment, running
from tests.waiting import wait_until
from tests.workers import wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

TEXTS = (
    run.EXAMPLES,
    publish.EXAMPLES,
    tail.EXAMPLES,
    show.EXAMPLES,
    dead_letters.EXAMPLES,
    dead_letters.LIST_EXAMPLES,
    dead_letters.SHOW_EXAMPLES,
    dead_letters.REPLAY_EXAMPLES,
    dead_letters.DROP_EXAMPLES,
    worker.EXAMPLES,
    check.EXAMPLES,
    init.EXAMPLES,
)
EXAMPLES = sorted(
    {
        line.strip().removeprefix(PROMPT)
        for text in TEXTS
        for line in Text.from_markup(text).plain.splitlines()
        if line.strip().startswith(PROMPT)
    }
)
FOREVER = ("run", "worker", "tail")
DONE = {
    "type": "response.refusal.done",
    "refusal": "No.",
    "item_id": "msg_7",
    "output_index": 0,
    "content_index": 0,
}
LETTER = {
    "reason": "invalid_event",
    "error": "wrong",
    "stream": "deltaloom:deltas",
    "entry_id": "1-0",
    "deliveries": "1",
    "failed_at": "2026-01-02T03:04:05Z",
    "entry": json.dumps({"event": "{"}),
}


@pytest.fixture
async def world(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> Path:
    """Create the files, the response and the dead letter that the examples use."""
    (tmp_path / "stream.jsonl").write_text(json.dumps(DONE))
    (tmp_path / "alerts.toml").write_text('[destinations.log]\ntype = "log"\n')
    (tmp_path / "chat.sse").write_bytes(body_of(SAMPLES["chat refusal"]))
    (tmp_path / "stream.sse").write_text(f"event: x\ndata: {json.dumps(DONE)}\n\n")
    names = StreamNames(prefix)
    async with workers_in_process(redis_url, prefix):
        entry: Any = {"event": json.dumps(DONE), "response_id": "resp_42"}
        for number in range(5):
            own: Any = {"response_id": f"resp_{number}"} if number else {"upstream_response_id": "chatcmpl-9"}
            await redis.xadd(names.deltas, {**entry, **own})
        await wait_until_settled(redis, prefix)
    letter: Any = LETTER
    await redis.xadd(names.dead_letters, letter, id="1763764863123-0")
    ref = EntryRef(names.alerts, EntryId(1, 0))
    delivery: Any = {"__data__": ended(ref).delivery.model_dump_json()}
    await redis.xadd(names.deliveries, delivery)
    for _ in range(5):  # `tail --count 10` needs ten texts
        await again(redis, names.assembled)
    return tmp_path


async def again(redis: Redis, stream: str) -> None:
    """Add a stream's newest entry once more."""
    newest: Any = await redis.xrevrange(stream, count=1)
    await redis.xadd(stream, newest[0][1])


def parsed(example: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables and the arguments of the `deltaloom` command in an example with pipes."""
    part = next(part for part in example.split(" | ") if re.search(r"(^|\s)deltaloom\s", part))
    before, _, after = part.partition("deltaloom ")
    return dict(word.split("=", 1) for word in before.split()), shlex.split(after)


def test_there_are_examples() -> None:
    """Otherwise the test of the examples would pass without running any."""
    assert len(EXAMPLES) > 15


@pytest.mark.parametrize("example", EXAMPLES)
async def test_example(redis: Redis, redis_url: str, prefix: str, world: Path, example: str) -> None:
    """Examples work when they are copied out of the help."""
    variables, arguments = parsed(example)
    variables.pop("REDIS_URL", None)
    url = None if example == "deltaloom run" else redis_url
    env = environment(url, prefix, **variables)
    if arguments[0] in FOREVER and "--count" not in arguments:
        with running(*arguments, env=env, cwd=world) as process:

            async def does_something() -> bool:
                await again(redis, f"{prefix}:{arguments[1]}") if arguments[0] == "tail" else None
                return bool(process.stdout) or "worker started" in process.stderr

            await wait_until(does_something, TIMEOUT)
            assert process.end(signal.SIGINT) == 0
            assert "Traceback" not in process.stderr
        return
    done = deltaloom(*arguments, env=env, cwd=world, stdin=json.dumps(DONE).encode())
    is_strict = "--strict" in arguments  # the tests' server is one to warn of: it has no disk
    assert done.returncode == (1 if is_strict else 0), done.stderr
    assert re.fullmatch("|.*resp_42 was published before.*\n|translated from openai.chat\n", done.stderr)
    assert done.stdout
