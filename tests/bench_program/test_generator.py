"""Test the generated input: it has the shape of real streams, with correct expectations."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from bench.entries import Expected, entries, load
from bench.generator import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.entries import Entry

SHAPE = Shape(open_responses=20, events=12_000)


def generated(shape: Shape) -> tuple[list[Entry], Expected]:
    """Return all entries of an input, and the expected outputs."""
    expected = Expected()
    return list(entries("test", shape, expected)), expected


def events_of(entry: Entry) -> list[dict[str, Any]]:
    """Return an entry's events."""
    body = json.loads(entry.body)
    return body if isinstance(body, list) else [body]


def deltas(published: list[Entry]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all deltas with their response ids."""
    for entry in published:
        for event in events_of(entry):
            if "delta" in event:
                yield entry.response_id, event


def test_it_has_the_shape_of_real_streams() -> None:
    """Generate sizes and kinds as in production. Otherwise the measurements would not apply to it."""
    published, expected = generated(SHAPE)
    lengths = [len(event["delta"]) for _, event in deltas(published)]
    assert statistics.median(lengths) == 4
    assert 150 < statistics.median(len(entry.body) for entry in published) < 280
    assert 60 < len(lengths) / len(expected.texts) < 120
    assert {name.kind for name in expected.texts} == {"refusal", "reasoning", "reasoning_summary"}
    padded = sum("obfuscation" in event for _, event in deltas(published))
    assert 0.3 < padded / len(lengths) < 1


@pytest.mark.parametrize("entry_events", [1, 16])
def test_texts_are_their_deltas(entry_events: int) -> None:
    """Expect the joined deltas. Otherwise the benchmark would report correct texts as wrong."""
    published, expected = generated(Shape(10, 6000, entry_events))
    joined: defaultdict[tuple[str, int], str] = defaultdict(str)
    for response_id, event in deltas(published):
        joined[response_id, event["output_index"]] += event["delta"]
    assert joined == {(name.response_id, name.output_index): text for name, text in expected.texts.items()}
    assert {name for entry in published for name in entry.closes} == expected.texts.keys()
    assert {name for entry in published for name in entry.opens} == expected.refusals


def test_the_given_number_of_responses_is_open() -> None:
    """Keep the given number of responses open at once."""
    published, _ = generated(SHAPE)
    two_rounds = published[len(published) // 2 :][: 2 * SHAPE.open_responses]
    ids = {entry.response_id for entry in two_rounds}
    assert SHAPE.open_responses <= len(ids) < SHAPE.open_responses * 1.5  # some end, and others begin


def test_open_texts_have_no_closings() -> None:
    """Generate open texts only, for the measurement of their memory."""
    shape = Shape(5, 5 * 48, deltas=40, refusals=False, closed=False, uniform=True)
    published, expected = generated(shape)
    assert not expected.texts
    assert len(list(deltas(published))) == 200
    assert {len(event["delta"]) for _, event in deltas(published)} == {4}


def test_the_same_seed_gives_the_same_input() -> None:
    """Generate the same input from one seed, so that runs can be compared."""
    assert load("1", SHAPE, "stream").chunks == load("1", SHAPE, "stream").chunks
    assert load("1", SHAPE, "stream").chunks != load("2", SHAPE, "stream").chunks
