"""Events for the tests of the publisher, and the assembly of what arrived."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from deltaloom import PublisherCounters

Event = dict[str, Any]

FAMILIES = {
    "refusal": "response.refusal",
    "reasoning": "response.reasoning_text",
    "output_text": "response.output_text",
}


def delta(kind: str, text: str, number: int | None, output_index: int = 0) -> Event:
    """Return a delta."""
    event: Event = {"type": f"{FAMILIES[kind]}.delta", "output_index": output_index, "content_index": 0}
    if number is not None:
        event["sequence_number"] = number
    return event | {"delta": text}


def done(kind: str, text: str, number: int, output_index: int = 0) -> Event:
    """Return the closing of a part."""
    place = {"output_index": output_index, "content_index": 0, "sequence_number": number}
    field = "refusal" if kind == "refusal" else "text"
    return {"type": f"{FAMILIES[kind]}.done", **place, field: text}


def completed(number: int) -> Event:
    """Return the end of a response."""
    return {"type": "response.completed", "sequence_number": number, "response": {"status": "completed"}}


def refusal(words: Iterable[str]) -> list[Event]:
    """Return the events of a response with a refusal."""
    words = list(words)
    deltas = [delta("refusal", word, number) for number, word in enumerate(words)]
    return [*deltas, done("refusal", "".join(words), len(words)), completed(len(words) + 1)]


def events_of(entries: Iterable[Mapping[bytes, bytes]]) -> dict[str, list[Event]]:
    """Return the events of stream entries, by response id; `` for none."""
    events = defaultdict[str, list[Event]](list)
    for fields in entries:
        content = json.loads(fields[b"event"])
        events[fields.get(b"response_id", b"").decode()] += (
            content if isinstance(content, list) else [content]
        )
    return dict(events)


def texts_of(events: Iterable[Event]) -> dict[tuple[str, int], str]:
    """Join the deltas of each part as a worker does: distinct ones, by number."""
    parts = defaultdict[tuple[str, int], set[tuple[int, str]]](set)
    for event in events:
        if event["type"].endswith(".delta"):
            fragment = (event["sequence_number"], event["delta"])
            parts[event["type"], event["output_index"]].add(fragment)
    return {part: "".join(text for _, text in sorted(fragments)) for part, fragments in parts.items()}


def balance(counters: PublisherCounters) -> int:
    """Return the number of events without an account; it must be 0."""
    ends = counters.published + counters.merged + sum(counters.dropped.values()) + counters.waiting
    return counters.seen - ends
