"""Measurement: events per second of a publisher like `deltaloom publish`, with 500 XADDs per round trip."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.entries import Expected, entries

if TYPE_CHECKING:
    from bench.stage import Stage

NAME = "publishing"
EVENTS = "events/s"
_OPEN = 50
_PIPELINED = 500
_SIZES = (1, 16)


def measure(stage: Stage) -> None:
    """Publish prepared events with redis-py."""
    for size in _SIZES:
        case = f"entries of {size}"
        shape = stage.shape(_OPEN, stage.options.events // 4 * (1 if size == 1 else 2), size)
        published = list(entries(stage.options.seed, shape, Expected()))
        events = sum(entry.events for entry in published)
        for _ in stage.rounds(case):
            stage.place.clear()
            began = time.perf_counter()
            pipeline = stage.place.client.pipeline(transaction=False)
            for entry in published:
                pipeline.xadd(
                    stage.place.names.deltas,
                    {"event": entry.body, "response_id": entry.response_id, "tenant": "acme"},
                )
                if len(pipeline) >= _PIPELINED:
                    pipeline.execute()
            pipeline.execute()
            rate = events / (time.perf_counter() - began)
            stage.add(case, "redis-py pipeline", EVENTS, rate)
            stage.progress.say(f"{NAME}, {case}: {rate:,.0f} events/s")
