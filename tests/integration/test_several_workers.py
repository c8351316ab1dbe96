"""The output depends on the input stream alone, not on the number of workers or the cuts between entries.

The test also uses the recorded streams in the folder that RECORDINGS names, since real streams are the better
test.
"""

from __future__ import annotations

import json
import os
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import demo
from deltaloom import AssembledText, StreamNames
from tests.waiting import wait_until
from tests.workers import alerts, dead_letters, running_workers, texts, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

SHIPPED = Path(demo.__file__).parent / "streams"
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
"""Kind, name of the index field, and name of the text field of each family of events."""


class Part(NamedTuple):
    """A part, identified as in its events."""

    stream: str
    output_index: int
    content_index: int
    kind: str


def streams_in(folder: Path) -> dict[str, list[str]]:
    """Return the events of all streams in a folder, unparsed, by the stream's name."""
    streams = {path.stem: path.read_text().splitlines() for path in sorted(folder.glob("*.jsonl"))}
    assert streams, f"no *.jsonl in {folder}"
    return streams


def declared_texts(streams: dict[str, list[str]]) -> dict[Part, str]:
    """Return the text of each part according to its own `.done` event."""
    return {part: text for stream, lines in streams.items() for part, text in _declared_texts(stream, lines)}


def _declared_texts(stream: str, lines: list[str]) -> Iterator[tuple[Part, str]]:
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
    """Publish all streams, interleaved at random, with `coalesce` events per entry, in batches.

    Workers that wait for a first entry get one batch each.
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


async def this_many_wait(redis: Redis, count: int) -> bool:
    """Return whether this many clients wait for an entry."""
    clients = await redis.info("clients")
    return bool(clients["blocked_clients"] == count)


def without_times(text: AssembledText) -> dict[str, Any]:
    """Return the fields that must be the same in each run; each run has its own prefix."""
    return text.model_dump(exclude={"started_at", "finished_at", "source"})


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
async def test_same_texts_whatever_the_workers_and_the_grouping(
    redis: Redis, redis_url: str, prefix: str, folder: Path
) -> None:
    """The texts are the same for any number of workers and any grouping of events."""
    streams = streams_in(folder)
    broken = {name for name, lines in streams.items() if any(not _is_json(line) for line in lines)}
    results: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
    for workers in (1, 2, 4):
        for coalesce in (1, 16):
            run = f"{prefix}-{workers}-{coalesce}"
            whole = {name: lines for name, lines in streams.items() if name not in broken}
            async with running_workers(redis_url, run, workers, **SETTINGS) as processes:
                all_wait = partial(this_many_wait, redis, workers)
                await wait_until(all_wait, message="all wait for a first entry", interval=0.001)
                await publish(redis, run, whole, coalesce=coalesce, seed=workers * 100 + coalesce)
                await wait_until_settled(redis, run)
                await wait_until_nothing_is_open(redis, run)
                had_some = [process for process in processes if process.has_logged("batch committed")]
                assert len(had_some) >= min(workers, 2), "one worker processed everything"
            got = await texts(redis, run)
            assert len({text.id for text in got}) == len(got), "a text came twice"
            assert {text.source for text in got} == {run}
            by_part = {
                Part(str(text.response_id), text.output_index, text.content_index, text.kind): text.text
                for text in got
            }
            expected = declared_texts(whole)
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
    """Wait until responses without an end are abandoned."""

    async def none_open() -> bool:
        return not await redis.zcard(StreamNames(prefix).name("open"))

    await wait_until(none_open, 30, message="nothing is open")
