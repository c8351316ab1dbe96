"""Compare the texts of recorded streams with the streams' own `.done` events.

The environment variable RECORDINGS names a folder of recordings (`*.jsonl`, one event a line). Without it, a
single test runs, and its id shows that the variable is not set. Entries are settled after each event that is
no delta, and after each 50th delta; RECORDINGS_STEP is another number, such as 1.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from handlers import BUILT_IN
from handlers.core.identity import EntryId
from handlers.core.response import resolve
from handlers.core.routing import RoutingTable
from tests.service.pipeline.model import ALL_STORED, NOW_MS, StoredSet, batch_of
from tests.strategies import entry_of

TABLE = RoutingTable(BUILT_IN.values())
FOLDER = os.environ.get("RECORDINGS")
STEP = int(os.environ.get("RECORDINGS_STEP", "50"))
"""Number of deltas between two settlements. Each of them decodes the whole log, so 1 takes quadratic time."""
RECORDINGS = sorted(Path(FOLDER).glob("*.jsonl")) if FOLDER else []


def _events(recording: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in recording.read_text("utf-8").splitlines() if line.strip()]


def _expected(events: list[dict[str, Any]]) -> dict[tuple[int, int, str], str]:
    """Return the texts of the parts' `.done` events."""
    kinds = {
        "refusal": "refusal",
        "reasoning_text": "reasoning",
        "reasoning_summary_text": "reasoning_summary",
    }
    kinds["output_text"] = "output_text"
    expected: dict[tuple[int, int, str], str] = {}
    for event in events:
        _, _, name = str(event.get("type")).partition(".")
        kind = kinds.get(name.removesuffix(".done")) if name.endswith(".done") else None
        text = event.get("refusal" if kind == "refusal" else "text")
        if kind is not None and text:
            index = event["summary_index" if kind == "reasoning_summary" else "content_index"]
            expected.setdefault((event["output_index"], index, kind), text)
    return expected


def _settled(stored: StoredSet) -> StoredSet:
    """Finish all closed parts, and then abandon the rest."""
    stored.settle_all(list(stored.responses), ALL_STORED)
    for key in stored.responses:
        state = stored.state(key)
        stored.settle(state, resolve(state, ALL_STORED, idle_at_ms=NOW_MS))
    return stored


@pytest.mark.parametrize(
    "recording", RECORDINGS or [None], ids=lambda path: path.stem if path else "RECORDINGS is not set"
)
def test_texts_of_a_recorded_stream(recording: Path | None) -> None:
    """Assemble a real server's texts from single entries, from arrays, and in reverse order."""
    if recording is None:
        assert not FOLDER, f"RECORDINGS={FOLDER}: there is no *.jsonl"
        return
    events = _events(recording)
    entries = [entry_of([event], EntryId(1, number), "resp_1") for number, event in enumerate(events)]
    alone = StoredSet()
    for number, (event, entry) in enumerate(zip(events, entries, strict=True)):
        commit = batch_of([entry], TABLE).commit
        alone.commit(commit)
        if number % STEP == 0 or not str(event.get("type")).endswith(".delta"):
            alone.settle_all(list(alone.responses), ALL_STORED)
    backwards = StoredSet()
    for entry in reversed(entries):
        backwards.commit(batch_of([entry], TABLE).commit)
    coalesced = StoredSet()
    for start in range(0, len(events), 16):
        coalesced.process(
            [entry_of(events[start : start + 16], EntryId(1, start), "resp_1")], TABLE, ALL_STORED
        )
    for stored in (alone, backwards, coalesced):
        written = _settled(stored).written.values()
        texts = {(text.output_index, text.content_index, str(text.kind)): text for text in written}
        expected = _expected(events)
        assert {place: texts[place].text for place in expected} == expected
        assert all(texts[place].status == "completed" for place in expected)
    assert _settled(backwards).written == _settled(alone).written
