"""Test the log lines and keys in docs/operations.md against a worker's."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from deltaloom import StreamNames
from service.storage.removal import Removal
from tests.docs.pages import OPERATIONS, ROOT, quoted
from tests.waiting import wait_until
from tests.workers import dead_letters, running_workers, texts, wait_until_settled, workers_in_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


PART = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
ALERTED = "refusal"
"""The built-in kind of text that has alerts, in the events that begin with a kind."""

EVERY_DAY = {"worker started", "batch committed", "refusal opened", "text finished", "dead letter"}
LEFT_OUT = {"logger", "timestamp"}
"""Fields of each line that the page's samples omit."""


async def publish(redis: Redis, prefix: str) -> None:
    """Publish a finished and an open refusal, an unknown and a broken event, and a whole response."""
    delta = {"type": "response.refusal.delta", "sequence_number": 1, "delta": "No.", **PART}
    done = {"type": "response.refusal.done", "sequence_number": 2, "refusal": "No.", **PART}
    for event, response_id in (
        (delta, "resp_1"),
        (done, "resp_1"),
        ({"type": "response.in_progress"}, "resp_1"),
        (delta, "resp_2"),
        ({"type": "response.created", "response": {"model": "gpt-4o"}}, "resp_3"),
        ({"type": "response.completed", "response": {}}, "resp_3"),
        (done, "resp_4"),
        ({"type": "response.completed", "response": {}}, "resp_4"),
    ):
        await redis.xadd(StreamNames(prefix).deltas, {"event": json.dumps(event), "response_id": response_id})
    await redis.xadd(StreamNames(prefix).deltas, {"event": "{"})


def samples() -> dict[str, Mapping[str, object]]:
    """Return the page's log lines by their event."""
    lines = [
        json.loads(line)
        for block in OPERATIONS.blocks
        if block.language == "json"
        for line in block.text.splitlines()
    ]
    return {line["event"]: line for line in lines}


async def test_log_lines_are_those_of_a_worker(redis: Redis, redis_url: str, prefix: str) -> None:
    """Show the fields and levels of a worker's log lines."""
    async with running_workers(redis_url, prefix, log_level="debug") as (worker,):
        await publish(redis, prefix)
        await wait_until_settled(redis, prefix)
        await wait_until(lambda: worker.has_logged("text finished"), message="the text is logged")
        await worker.stop()
        written = {line["event"]: line for line in worker.lines() if line["logger"] == "deltaloom"}
    assert written.keys() >= EVERY_DAY
    for event, line in written.items():
        sample = samples()[event]
        assert (set(sample), sample["level"]) == (line.keys() - LEFT_OUT, line["level"]), event


def test_fields_of_log_lines_are_explained() -> None:
    """Explain each field of the log lines."""
    explained = [name for row in OPERATIONS.table("Log lines") for name in quoted(row[0])]
    assert sorted(explained) == sorted(
        {name for line in samples().values() for name in line} - {"event", "level"}
    )


def test_every_log_line_is_on_the_page() -> None:
    """Show each log line of the code."""
    fields = {event: names for path in (ROOT / "service").rglob("*.py") for event, names in logged(path)}
    assert fields.keys() == samples().keys()
    for event, names in fields.items():
        assert names <= samples()[event].keys() | {"text"}, event


def logged(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield the event and the field names of each log call in a module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="log") | ast.Call(func=ast.Attribute(attr="logger")),
                    attr="debug" | "info" | "warning" | "error" | "exception" | "critical",
                ),
                args=[
                    ast.Constant(value=str(event)) | ast.JoinedStr(values=[_, ast.Constant(value=str(event))])
                ],
            ):
                named = event if event[0] != " " else f"{ALERTED}{event}"
                yield named, {keyword.arg for keyword in node.keywords if keyword.arg}


def test_versions_that_go_together_are_tested() -> None:
    """Name an existing test for each combination of versions, and each such test."""
    (module,) = (ROOT / "tests/upgrade").glob("test_*.py")
    tests = re.findall(r"^async def (test_\w+)", module.read_text("utf-8"), re.MULTILINE)
    named = [quoted(row[-1])[0] for row in OPERATIONS.table("Versions that go together")]
    assert sorted(named) == sorted(tests)


async def test_keys_are_those_of_a_worker(redis: Redis, redis_url: str, prefix: str) -> None:
    """List each key with its type."""
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix)
        await wait_until_settled(redis, prefix)
        assert await texts(redis, prefix)
        assert await dead_letters(redis, prefix)
        keys: list[Any] = [key async for key in redis.scan_iter(f"{prefix}*")]
        kinds: list[Any] = [await redis.type(key) for key in keys]
    types = {key.decode(): kind.decode() for key, kind in zip(keys, kinds, strict=True)}
    table = OPERATIONS.table("The keys it writes")
    documented = {
        re.compile(re.sub(r"<[^>]+>", ".+", quoted(key)[0].replace("deltaloom", prefix, 1))): kind
        for key, kind, *_ in table
    }
    for key, kind in types.items():
        matches = {documented[pattern] for pattern in documented if pattern.fullmatch(key)}
        assert matches == {kind.replace("zset", "sorted set")}, key
    unseen = [pattern.pattern for pattern in documented if not any(map(pattern.fullmatch, types))]
    seldom = (
        "waiting",
        "owners",
        "counted-fields",
        "spikes",
        "provider-spikes",
        "spike-turn",
        "draining",
        "figures:lease",
        "undelivered",
        "deliveries",
        "gone",
        "relay:.+:lease",
        "relay:.+:digests",
        "kind-retention",
        "done:.+",
    )
    assert set(unseen) <= {f"{prefix}:{key}" for key in seldom}


def test_users_are_those_of_the_file() -> None:
    """Show the users of `deploy/users.acl`."""
    (block,) = [block for block in OPERATIONS.blocks if block.text.startswith("user default ")]
    shown = block.text.replace("\n    ", " ").splitlines()
    assert shown == (ROOT / "deploy/users.acl").read_text("utf-8").splitlines()
    rows = [quoted(row[0])[0] for row in OPERATIONS.table("Users")]
    assert sorted(rows) == sorted(line.split()[1] for line in shown)


def test_the_removal_of_a_deployment_knows_every_key() -> None:
    """Remove each key of the table. Otherwise `deltaloom remove` would leave it behind."""
    examples = {
        "<stream key>": "response:r",
        "<output_index>": "0",
        "<digest>": "A" * 20,
        "<part>": "0:0:refusal",
    }
    examples |= {"<width>": "60", "<start>": "1700000000", "<name>": "on-call"}
    removal = Removal(Redis(), "deltaloom")
    for row in OPERATIONS.table("The keys it writes"):
        key = quoted(row[0])[0]
        for placeholder, example in examples.items():
            key = key.replace(placeholder, example)
        assert "<" not in key
        assert removal.kind_of(key), key
        assert removal.kind_of(key.replace("deltaloom:", "deltaloom:{7}:", 1)), key
        assert removal.kind_of(key.replace("deltaloom:", "deltaloom:b:", 1)) is None, key
