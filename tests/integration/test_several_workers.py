"""Output is a function of the input stream alone: not of how many workers, nor of how events are grouped.

Real streams make this worth something, so the test also takes those in the folder that RECORDINGS names.
"""

from __future__ import annotations

import json
import os
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import service.demo
from deltaloom import AssembledText, StreamNames
from tests.waiting import wait_until
from tests.workers import alerts, dead_letters, running_workers, texts, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

SHIPPED = Path(service.demo.__file__).parent / "streams"
RECORDINGS = os.environ.get("RECORDINGS")
FOLDERS = [SHIPPED] if RECORDINGS is None else [SHIPPED, Path(RECORDINGS)]

HANDLERS = "refusal,reasoning,lifecycle,output_text"
BATCH = 20
SETTINGS = {
    "handlers": HANDLERS,
    "batch_size": BATCH,
    "idle_timeout": 5,
    "sweep_interval": 0.2,
    "log_level": "debug",
}
TEXT_FIELDS = {
    "response.refusal": ("refusal", "content_index", "refusal"),
    "response.reasoning_text": ("reasoning", "content_index", "text"),
    "response.reasoning_summary_text": ("reasoning_summary", "summary_index", "text"),
    "response.output_text": ("output_text", "content_index", "text"),
}
"""From an event's family to its kind, and to the fields with its index and its whole text."""


class Part(NamedTuple):
    """A part, as its events name it."""

    stream: str
    output_index: int
    content_index: int
    kind: str


def streams_in(folder: Path) -> dict[str, list[str]]:
    """The events of every stream in a folder, each as it came, by the stream's name."""
    streams = {path.stem: path.read_text().splitlines() for path in sorted(folder.glob("*.jsonl"))}
    assert streams, f"no *.jsonl in {folder}"
    return streams


def said(streams: dict[str, list[str]]) -> dict[Part, str]:
    """What each part's own `.done` says its text is."""
    return {part: text for stream, lines in streams.items() for part, text in _said(stream, lines)}


def _said(stream: str, lines: list[str]) -> Iterator[tuple[Part, str]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        family, _, last = event["type"].rpartition(".")
        if last == "done" and family in TEXT_FIELDS:
            kind, index, text = TEXT_FIELDS[family]
            yield Part(stream, event["output_index"], event[index], kind), event[text]


async def publish(
    redis: Redis, prefix: str, streams: dict[str, list[str]], *, coalesce: int, seed: int
) -> None:
    """Publish all streams, interleaved at random, `coalesce` events an entry, and a batch at a time.

    Workers that wait for a first entry are given one each.
    """
    order = random.Random(seed)
    left = {name: list(lines) for name, lines in streams.items()}
    pipeline = redis.pipeline(transaction=False)
    while left:
        name = order.choice(list(left))
        events, left[name] = left[name][:coalesce], left[name][coalesce:]
        if not left[name]:
            del left[name]
        body = events[0] if coalesce == 1 else f"[{','.join(events)}]"
        pipeline.xadd(StreamNames(prefix).deltas, {"event": body, "response_id": name})
        if len(pipeline) == BATCH:
            await pipeline.execute()
    await pipeline.execute()


async def so_many_wait(redis: Redis, count: int) -> bool:
    """Whether so many clients wait for an entry."""
    clients = await redis.info("clients")
    return bool(clients["blocked_clients"] == count)


def without_times(text: AssembledText) -> dict[str, Any]:
    """Return all that must be the same in every run; each run has a prefix of its own."""
    return text.model_dump(exclude={"started_at", "finished_at", "source"})


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
async def test_same_texts_whatever_the_workers_and_the_grouping(
    redis: Redis, redis_url: str, prefix: str, folder: Path
) -> None:
    """A text that depends on who read which entry is wrong for somebody."""
    streams = streams_in(folder)
    broken = {name for name, lines in streams.items() if any(not _is_json(line) for line in lines)}
    results: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
    for workers in (1, 2, 4):
        for coalesce in (1, 16):
            run = f"{prefix}-{workers}-{coalesce}"
            whole = {name: lines for name, lines in streams.items() if name not in broken}
            async with running_workers(redis_url, run, workers, **SETTINGS) as processes:
                all_wait = partial(so_many_wait, redis, workers)
                await wait_until(all_wait, message="all wait for a first entry", interval=0.001)
                await publish(redis, run, whole, coalesce=coalesce, seed=workers * 100 + coalesce)
                await wait_until_settled(redis, run)
                await wait_until_nothing_is_open(redis, run)
                had_some = [process for process in processes if process.said("batch committed")]
                assert len(had_some) >= min(workers, 2), "one did all there was to do"
            got = await texts(redis, run)
            assert len({text.id for text in got}) == len(got), "a text came twice"
            assert {text.source for text in got} == {run}
            by_part = {
                Part(str(text.response_id), text.output_index, text.content_index, text.kind): text.text
                for text in got
            }
            expected = said(whole)
            assert {part: by_part.get(part) for part in expected} == expected
            raised = [(alert.type, alert.id) for alert in await alerts(redis, run)]
            assert len(set(raised)) == len(raised) == 2 * sum(text.kind == "refusal" for text in got)
            assert await dead_letters(redis, run) == []
            results[workers, coalesce] = {text.id: without_times(text) for text in got}
    first, *others = results.values()
    for other in others:
        assert other == first


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


async def wait_until_nothing_is_open(redis: Redis, prefix: str) -> None:
    """Wait until what was cut off is given up too."""

    async def none_open() -> bool:
        return not await redis.zcard(StreamNames(prefix).name("open"))

    await wait_until(none_open, 30, message="nothing is open")
