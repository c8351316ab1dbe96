"""Streams of the demo: the events to publish, and the texts that must result.

A file in `streams/` holds one streamed response. A `.jsonl` has one event per line, in the order of sending.
A repeated line is published twice, as by a producer that retries; a line that is not JSON is published
unchanged. Any other file has the bytes of another provider's API, which a translator turns into events, as in
a producer. The expected texts are derived from the events by the simplest code possible, without any code of
the worker, which they verify.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from deltaloom.dialects import Translator
from demo.plan import PROGRAMME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deltaloom.messages import Kind
    from demo.plan import ExpectedOutcome, Plan

_FAMILIES: dict[str, tuple[Kind, str, str]] = {
    "response.refusal": ("refusal", "content_index", "refusal"),
    "response.reasoning_text": ("reasoning", "content_index", "text"),
    "response.reasoning_summary_text": ("reasoning_summary", "summary_index", "text"),
    "response.output_text": ("output_text", "content_index", "text"),
}
"""Kind, index field and field of the whole text in `.done`, for each family of events."""


class PartName(NamedTuple):
    """The position and kind of a text in its response."""

    output_index: int
    content_index: int
    kind: Kind


class Line(NamedTuple):
    """A line of a stream's file."""

    raw: str
    part: PartName | None = None
    """Text that the line adds a delta to; None if it adds none."""
    delta: str = ""
    repeat: bool = False
    """True if an equal line came before."""
    broken: bool = False
    """True if the line is not JSON."""


class Expected(NamedTuple):
    """A text that must come out."""

    part: PartName
    text: str
    delta_count: int
    outcome: ExpectedOutcome


@dataclass(frozen=True, slots=True)
class Stream:
    """A response as its producer publishes it."""

    plan: Plan
    response_id: str
    model: str
    safety_identifier: str | None
    lines: tuple[Line, ...]
    expected: tuple[Expected, ...]
    context: Mapping[str, str]
    """Context that the producer gives with each entry."""
    body: bytes = b""
    """Bytes of another provider's API; empty for events of the Responses API."""

    @property
    def name(self) -> str:
        """Return the name in the programme."""
        return self.plan.name


@dataclass(slots=True)
class _Part:
    """The deltas and the whole text that the file contains for one text."""

    deltas: dict[int, str] = field(default_factory=dict)
    whole: str | None = None

    def text(self) -> str:
        joined = (
            "".join(self.deltas[number] for number in sorted(self.deltas))
            if self.whole is None
            else self.whole
        )
        return joined_halves(joined)


def joined_halves(text: str) -> str:
    """Return `text` with split surrogate pairs joined; an unpaired surrogate becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def load() -> tuple[Stream, ...]:
    """Return the programme's streams with their expected texts."""
    folder = resources.files("demo") / "streams"
    streams = []
    for plan in PROGRAMME:
        if plan.dialect is None:
            streams.append(parse(plan, (folder / f"{plan.name}.jsonl").read_text(encoding="utf-8")))
        else:
            streams.append(translated(plan, (folder / f"{plan.name}.sse").read_bytes()))
    return tuple(streams)


def translated(plan: Plan, body: bytes) -> Stream:
    """Translate the bytes of another provider, and parse the events.

    Raises:
        ValueError: the number or kinds of the texts differ from the programme's outcomes.
    """
    translator = Translator(plan.dialect, response_id=f"resp_{plan.name}")
    events = [*translator.feed(body), *translator.end()]
    content = "\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    return replace(parse(plan, content, translator.context), body=body)


def parse(plan: Plan, content: str, context: Mapping[str, str] | None = None) -> Stream:
    """Parse events, one per line; `context` is that of their producer.

    Raises:
        ValueError: the number or kinds of its texts differ from the programme's outcomes.
    """
    parts: dict[PartName, _Part] = {}
    lines: list[Line] = []
    created: dict[str, Any] = {}
    seen: set[str] = set()
    for raw in content.splitlines():
        try:
            event = json.loads(raw)
        except json.JSONDecodeError:
            lines.append(Line(raw, broken=True))
            continue
        if event["type"] == "response.created":
            created = event["response"]
        lines.append(_line(raw, event, parts, repeat=raw in seen))
        seen.add(raw)
    return Stream(
        plan,
        created["id"],
        created["model"],
        created.get("safety_identifier"),
        tuple(lines),
        tuple(_expected(plan, parts)),
        {**(context or {}), "response_id": created["id"], "tenant": plan.name},
    )


def _line(raw: str, event: dict[str, Any], parts: dict[PartName, _Part], *, repeat: bool) -> Line:
    family, _, last = event["type"].rpartition(".")
    if family not in _FAMILIES:
        return Line(raw)
    kind, index, whole = _FAMILIES[family]
    name = PartName(event["output_index"], event[index], kind)
    part = parts.setdefault(name, _Part())
    if last == "done":
        part.whole = event[whole]
        return Line(raw)
    part.deltas[event["sequence_number"]] = event["delta"]
    return Line(raw, name, event["delta"], repeat=repeat)


def _expected(plan: Plan, parts: dict[PartName, _Part]) -> Iterator[Expected]:
    kinds = [name.kind for name in parts]
    if kinds != [outcome.kind for outcome in plan.outcomes]:
        raise ValueError(f"the stream {plan.name} has the texts {kinds}: not what the programme says of it")
    for (name, part), outcome in zip(parts.items(), plan.outcomes, strict=True):
        yield Expected(name, part.text(), len(part.deltas), outcome)
