"""Recorded streams of real servers through the pure chain: each text equals the stream's own `.done`.

Only where the environment variable RECORDINGS names a folder of them (`*.jsonl`, one event a line); the
name of the one test that there is else says so.
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
RECORDINGS = sorted(Path(FOLDER).glob("*.jsonl")) if FOLDER else []


def _events(recording: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in recording.read_text("utf-8").splitlines() if line.strip()]


def _said(events: list[dict[str, Any]]) -> dict[tuple[int, int, str], str]:
    """What each part's own `.done` says."""
    kinds = {
        "refusal": "refusal",
        "reasoning_text": "reasoning",
        "reasoning_summary_text": "reasoning_summary",
    }
    kinds["output_text"] = "output_text"
    said: dict[tuple[int, int, str], str] = {}
    for event in events:
        _, _, name = str(event.get("type")).partition(".")
        kind = kinds.get(name.removesuffix(".done")) if name.endswith(".done") else None
        text = event.get("refusal" if kind == "refusal" else "text")
        if kind is not None and text:
            index = event["summary_index" if kind == "reasoning_summary" else "content_index"]
            said.setdefault((event["output_index"], index, kind), text)
    return said


def _settled(stored: StoredSet) -> StoredSet:
    """Everything that can be finished, and then what is given up."""
    stored.settle_all(list(stored.responses), ALL_STORED)
    for key in stored.responses:
        state = stored.state(key)
        stored.settle(state, resolve(state, ALL_STORED, idle_at_ms=NOW_MS))
    return stored


@pytest.mark.parametrize(
    "recording", RECORDINGS or [None], ids=lambda path: path.stem if path else "RECORDINGS is not set"
)
def test_texts_of_a_recorded_stream(recording: Path | None) -> None:
    """A real server's text would come out wrong, twice, or not at all; alone, coalesced or backwards."""
    if recording is None:
        assert not FOLDER, f"RECORDINGS={FOLDER}: there is no *.jsonl"
        return
    events = _events(recording)
    entries = [entry_of([event], EntryId(1, number), "resp_1") for number, event in enumerate(events)]
    alone = StoredSet()
    for entry in entries:
        alone.take([entry], TABLE, ALL_STORED)
    backwards = StoredSet()
    for entry in reversed(entries):
        backwards.commit(batch_of([entry], TABLE).commit)
    coalesced = StoredSet()
    for start in range(0, len(events), 16):
        coalesced.take([entry_of(events[start : start + 16], EntryId(1, start), "resp_1")], TABLE, ALL_STORED)
    for stored in (alone, backwards, coalesced):
        written = _settled(stored).written.values()
        texts = {(text.output_index, text.content_index, str(text.kind)): text for text in written}
        said = _said(events)
        assert {place: texts[place].text for place in said} == said
        assert all(texts[place].status == "completed" for place in said)
    assert _settled(backwards).written == _settled(alone).written
