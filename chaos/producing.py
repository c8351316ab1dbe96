"""A program that publishes responses for some seconds, and records what its caller got.

`python -m chaos.producing URL FOLDER NAME SECONDS SEED` offers the events of many responses to a
`deltaloom.Publisher` with a small budget. Before each offer it appends the event's response, number and words
to `FOLDER/NAME.offered`; at its end it writes its counters and losses to `FOLDER/NAME.counters`. Now and then
it forks: the child goes on as a producer of its own, with the name `NAME-1` and so on.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from deltaloom import Publisher

if TYPE_CHECKING:
    from deltaloom import LossReport, PublisherCounters, ResponseStream

BUDGET: Final = 192 * 1024
_FAMILIES: Final = (
    ("response.refusal", "refusal"),
    ("response.reasoning_text", "text"),
    ("response.output_text", "text"),
)
_FORKS: Final = 3
_OPEN: Final = 6


class OpenResponse:
    """A response in progress: it offers one event at a time."""

    def __init__(self, stream: ResponseStream, chance: random.Random, *, numbered: bool) -> None:
        self._stream = stream
        self._chance = chance
        self._numbered = numbered
        self._left = chance.randint(1, 150)
        self._number = 0
        self._words: dict[int, list[str]] = {}
        self.is_over = False

    def step(self, log: TextIO) -> None:
        """Offer the next event."""
        part = self._chance.randrange(3)
        family, field = _FAMILIES[part]
        place: dict[str, Any] = {"output_index": part, "content_index": 0}
        word = f"<{self._number}>"
        if self._left > 0:
            self._left -= 1
            self._words.setdefault(part, []).append(word)
            event = {"type": f"{family}.delta", **place, "delta": word + "é" * self._chance.randrange(80)}
            self._words[part][-1] = event["delta"]
        elif self._words and self._chance.random() < 0.9:  # noqa: PLR2004 - most parts are closed
            part, words = self._words.popitem()
            family, field = _FAMILIES[part]
            event = {"type": f"{family}.done", **place, "output_index": part, field: "".join(words)}
        else:
            event = {"type": "response.completed", "response": {"status": "completed", "output": []}}
            self.is_over = True
        if self._numbered:
            event["sequence_number"] = self._number
        log.write(json.dumps([self._stream.response_id, self._number, event]) + "\n")
        log.flush()
        self._stream.offer([event])
        self._number += 1
        if self.is_over:
            self._stream.end()


class _Losses:
    """The losses that the publisher reports to its owner."""

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()
        self.by_response: Counter[str] = Counter()

    def note(self, report: LossReport) -> None:
        self.by_reason.update(report.dropped)
        self.by_response.update(report.responses)


def produce(url: str, folder: Path, name: str, until: float, seed: str) -> None:
    """Offer events until a time of the monotonic clock, then write the counters."""
    chance = random.Random(f"{seed}:{name}")
    losses = _Losses()
    publisher = Publisher(url, budget=BUDGET, on_loss=losses.note, timeout=0.5)
    children: list[int] = []
    responses: list[OpenResponse] = []
    log = (folder / f"{name}.offered").open("w")
    made = 0
    while time.monotonic() < until:
        if len(responses) < _OPEN:
            stream = publisher.stream(f"{name}.{made}", tenant=name)
            responses.append(OpenResponse(stream, chance, numbered=chance.random() < 0.7))  # noqa: PLR2004 - most
            made += 1
        response = chance.choice(responses)
        response.step(log)
        if response.is_over:
            responses.remove(response)
        if chance.random() < 0.02:  # noqa: PLR2004 - a pause now and then
            time.sleep(chance.random() * 0.05)
        if chance.random() < 0.0004 and len(children) < _FORKS:  # noqa: PLR2004 - seldom
            child = os.fork()
            if child == 0:
                losses.by_reason.clear()
                losses.by_response.clear()
                _go_on_as_child(publisher, losses, folder / f"{name}-{len(children) + 1}", until, seed)
            children.append(child)
    _write(folder / name, publisher.close(5), losses)
    for child in children:
        os.waitpid(child, 0)


def _go_on_as_child(publisher: Publisher, losses: _Losses, path: Path, until: float, seed: str) -> None:
    """Publish with the parent's publisher, whose copy in the child begins empty; then end the process."""
    code = 1
    try:
        chance = random.Random(f"{seed}:{path.name}")
        made = 0
        with path.with_suffix(".offered").open("w") as log:
            while time.monotonic() < until:
                response = OpenResponse(publisher.stream(f"{path.name}.{made}"), chance, numbered=True)
                made += 1
                while not response.is_over and time.monotonic() < until:
                    response.step(log)
                    if chance.random() < 0.05:  # noqa: PLR2004 - a pause now and then
                        time.sleep(chance.random() * 0.05)
        _write(path, publisher.close(5), losses)
        code = 0
    finally:
        os._exit(code)


def _write(path: Path, counters: PublisherCounters, losses: _Losses) -> None:
    result = {
        "seen": counters.seen,
        "published": counters.published,
        "merged": counters.merged,
        "waiting": counters.waiting,
        "dropped": dict(counters.dropped),
        "reasons": losses.by_reason,
        "responses": losses.by_response,
        "failures": dict(counters.failures),
    }
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(result))
    temporary.rename(path.with_suffix(".counters"))


if __name__ == "__main__":
    _, _url, _folder, _name, _seconds, _seed = sys.argv
    produce(_url, Path(_folder), _name, time.monotonic() + float(_seconds), _seed)
