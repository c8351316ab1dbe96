"""Time from a refusal's first delta to the webhook: recorded streams, a real worker and a real relay.

The recordings come from the folder in the variable RECORDINGS (`*.jsonl`, one event per line), or else from
the demo. The report contains the measured times (`-rP` shows them); the asserted bound is generous.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import demo
from deltaloom import StreamNames
from tests.relays import destination, relay_environment, relay_process, wait_until_served
from tests.streams import add
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from tests.webhook_receiver import Receiver

FOLDER = Path(os.environ.get("RECORDINGS") or Path(demo.__file__).parent / "streams")
AT_LEAST = 20
"""Minimum number of responses for a meaningful median. Recordings are repeated under other response ids."""
WITHIN = 1.0
"""Maximum median time from the first delta to the webhook, in seconds."""


def _refusals() -> list[list[str]]:
    """Return the lines of each recording that has refusal deltas."""
    recordings = [path.read_text("utf-8").splitlines() for path in sorted(FOLDER.glob("*.jsonl"))]
    return [lines for lines in recordings if any(map(_is_refusal_delta, lines))]


def _is_refusal_delta(line: str) -> bool:
    return '"response.refusal.delta"' in line and json.loads(line)["type"] == "response.refusal.delta"


async def test_refusals_ring_within_a_second(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The alert of a refusal reaches the webhook within a second at the median."""
    refusals = _refusals()
    assert refusals, f"{FOLDER}: no recording has a refusal"
    file = tmp_path / "alerts.toml"
    took: list[float] = []
    async with receiving() as receiver:
        file.write_text(destination("here", receiver.url))
        environment = relay_environment(redis_url, prefix)
        async with relay_process(file, environment, "worker", "--with-relay") as worker:
            await wait_until(partial(worker.has_logged, "worker started"), 30, message="the worker starts")
            await wait_until_served(redis, prefix, "here")
            for number in range(max(AT_LEAST, len(refusals))):
                response = f"resp_{number}"
                began = await _published(redis, prefix, response, refusals[number % len(refusals)])
                await wait_until(partial(_has_both, receiver, response), message="both alerts arrive")
                took.append(next(each.at for each in receiver.requests if _of(each.body, response)) - began)
    figures = (
        f"median {median(took) * 1000:.0f} ms, min {min(took) * 1000:.0f} ms, max {max(took) * 1000:.0f} ms"
    )
    record_property("first delta to webhook", figures)
    sys.stdout.write(
        f"first delta to webhook, {len(took)} responses of {len(refusals)} recordings: {figures}\n"
    )
    assert median(took) < WITHIN, figures


async def _published(redis: Redis, prefix: str, response: str, lines: list[str]) -> float:
    """Publish a response, and return the monotonic time just before its first refusal delta."""
    began = 0.0
    for line in lines:
        if not began and _is_refusal_delta(line):
            began = time.monotonic()
        await add(redis, StreamNames(prefix).deltas, {"event": line, "response_id": response})
    return began


def _of(body: dict[str, object], response: str) -> bool:
    return body["response_id"] == response


def _has_both(receiver: Receiver, response: str) -> bool:
    """Return whether both alerts have arrived; assert that they came once, and in order."""
    types = [each.body["type"] for each in receiver.requests if _of(each.body, response)]
    expected = ["deltaloom.refusal.opened", "deltaloom.refusal.finished"]
    assert types == expected[: len(types)]
    return types == expected
