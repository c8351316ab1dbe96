"""The newest state of responses, as the streams tell it: bounded, and with a version for each change."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from console.growing_text import GrowingText
from console.json_bodies import ms_of
from console.short_fields import LONGEST
from deltaloom.kinds import KINDS
from handlers.core.context import context_of, merge_context
from handlers.core.effects import CONTEXT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deltaloom.messages import AssembledText, Delivery, ModerationAlert
    from handlers.core.context import Registers
    from handlers.core.identity import EntryId
    from service.ports.commit import Commit, PartChange, ResponseChange

MAX_OPEN: Final = 2000
"""Responses under way that are kept; the one that was silent for longest is dropped first."""

MAX_ENDED: Final = 1000
"""Responses that are over that are kept; the oldest is dropped first."""

_MAX_PARTS: Final = 32
"""Parts that are kept of a response; the page of one response shows all."""

_MAX_ALERTS: Final = 8
"""Alerts that are kept of a response."""

_MAX_DESTINATIONS: Final = 32
"""Destinations that are kept of an alert."""

_MAX_TIMES: Final = 500
"""Deltas of a part of which the times are kept: the first ones."""

_MAX_SPIKES: Final = 50
"""Spikes that are kept, those that began last."""

_REFUSED: Final = frozenset(
    {"deltaloom.refusal.opened", "deltaloom.refusal.finished", "deltaloom.response.refused"}
)
_BLOCKED: Final = frozenset({"deltaloom.response.filtered", "deltaloom.response.blocked"})
_REFUSING: Final = frozenset(kind.name for kind in KINDS.values() if kind.counts_as_refused)

Place = tuple[int, int, str]
"""Output index, content index and kind of a part."""


@dataclass(slots=True)
class LivePart:
    """A part of a response."""

    text: GrowingText = field(default_factory=GrowingText)
    status: str | None = None
    """Status of the finished text; None while it grows."""
    integrity: str | None = None
    timeline: list[tuple[int, int]] = field(default_factory=list)
    """Times in ms since the epoch, and the characters that came then."""
    timeline_cut: bool = False
    """True if more came than the timeline keeps."""


@dataclass(slots=True)
class LiveAlert:
    """An alert, and what became of it at each destination."""

    id: str
    type: str
    severity: str
    after_ms: int
    """Milliseconds from the event that raised it to the alert."""
    category: str | None = None
    deliveries: dict[str, Delivery] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        sent = [
            {"destination": each.destination, "after_ms": each.latency_ms, "verdict": each.outcome}
            for each in self.deliveries.values()
        ]
        return {
            "id": self.id,
            "type": self.type,
            "after_ms": self.after_ms,
            "severity": self.severity,
            "category": self.category,
            "deliveries": sent,
        }


@dataclass(slots=True)
class LiveResponse:
    """A response, or an item without a response id."""

    id: str
    source: str
    began: int
    """Time of its first event that was seen, in ms since the epoch; also `ended` and `latest`."""
    latest: int = 0
    version: int = 0
    ended: int | None = None
    status: str = "open"
    reason: str | None = None
    reason_class: str | None = None
    refused: bool = False
    blocked: bool = False
    parts: dict[Place, LivePart] = field(default_factory=dict)
    alerts: dict[str, LiveAlert] = field(default_factory=dict)
    registers: Registers = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    """Context that outputs tell."""
    ends: bool = False
    """True if an event has ended the response; else its texts decide."""

    @property
    def context(self) -> dict[str, str | None]:
        """Context as far as it is known."""
        return {**context_of(self.registers)._asdict(), **self.told}

    def part(self, place: Place) -> LivePart | None:
        """Return a part, created if it is new; None if the response has too many parts."""
        if place not in self.parts and len(self.parts) >= _MAX_PARTS:
            return None
        return self.parts.setdefault(place, LivePart())


class LiveResponses:
    """The responses of all partitions that were seen last.

    Args:
        idle_ms: milliseconds after which the worker gives up a silent response.
    """

    def __init__(self, idle_ms: int) -> None:
        self._idle_ms = idle_ms
        self._open: OrderedDict[str, LiveResponse] = OrderedDict()
        """Responses under way, the one that was silent for longest first."""
        self._ended: OrderedDict[str, LiveResponse] = OrderedDict()
        self._spikes: dict[tuple[str, str], dict[str, Any]] = {}
        self.version = 0
        """Number of changes so far."""

    @property
    def open_count(self) -> int:
        """Number of responses under way."""
        return len(self._open)

    @property
    def spikes(self) -> list[dict[str, Any]]:
        """Spikes that began lately: `by`, `name`, `since`, `until` (None: not over)."""
        return list(self._spikes.values())

    def __iter__(self) -> Iterator[LiveResponse]:
        return chain(self._open.values(), self._ended.values())

    def get(self, response_id: str) -> LiveResponse | None:
        """Return a response; None if it was not seen lately."""
        return self._open.get(response_id) or self._ended.get(response_id)

    def newest(self, fits: Callable[[LiveResponse], bool], most: int) -> tuple[list[LiveResponse], int]:
        """Return the responses that fit and began last, the newest first, and how many fit."""
        fitting = [each for each in self if fits(each)]
        return heapq.nlargest(most, fitting, key=lambda each: (each.began, each.id)), len(fitting)

    def touch(self) -> None:
        """Count a change of something that is shown beside the responses."""
        self.version += 1

    def clear(self) -> None:
        """Forget all responses."""
        self._open.clear()
        self._ended.clear()
        self._spikes.clear()
        self.version += 1

    def take(self, commit: Commit, source: str) -> None:
        """Take the effects of a batch of input entries; a response with a very long id is left out."""
        for key, at in commit.touched.items():
            if len(key.value) <= LONGEST:
                self._seen(key.value, source, at)
        for key, change in commit.responses.items():
            if len(key.value) <= LONGEST:
                first, last = _span(commit, change)
                self._change(self._seen(key.value, source, first.ms, last.ms), commit, change)

    def take_text(self, message: AssembledText, source: str) -> None:
        """Take a finished text, unless its response has a very long id."""
        name = message.response_id or message.item_id
        if name is None or len(name) > LONGEST:
            return
        at = ms_of(message.finished_at) or 0
        response = self._seen(name, source, ms_of(message.started_at) or at, at)
        _tell(response, message)
        part = response.part((message.output_index, message.content_index, message.kind))
        if part is not None:
            part.text.close(message.text)
            part.status, part.integrity = message.status, message.integrity
        response.refused = response.refused or message.kind in _REFUSING
        if not response.ends and all(each.status for each in response.parts.values()):
            self._end(response, message.status, message.reason, message.reason_class, at)

    def take_alert(self, message: ModerationAlert, source: str, written_ms: int) -> None:
        """Take an alert, unless its response has a very long id; `written_ms` is the time of its entry."""
        raised = ms_of(message.raised_at) or written_ms
        if message.rate is not None:
            self._take_spike(message, raised)
        name = message.response_id or message.item_id
        if name is None or len(name) > LONGEST or message.rate is not None:
            return
        response = self._seen(name, source, raised, raised)
        _tell(response, message)
        response.refused = response.refused or message.type in _REFUSED
        response.blocked = response.blocked or message.type in _BLOCKED
        if message.id not in response.alerts and len(response.alerts) < _MAX_ALERTS:
            response.alerts[message.id] = LiveAlert(
                message.id, message.type, message.severity, max(0, written_ms - raised)
            )

    def take_delivery(self, message: Delivery) -> None:
        """Take the end of an alert at a destination."""
        response = self.get(message.response_id or message.item_id or "")
        alert = None if response is None else response.alerts.get(message.alert_id or "")
        if response is None or alert is None:
            return
        if message.destination in alert.deliveries or len(alert.deliveries) < _MAX_DESTINATIONS:
            alert.deliveries[message.destination] = message
        alert.severity, alert.category = message.severity or alert.severity, message.category
        self._changed(response)

    def give_up(self, now_ms: int) -> None:
        """End the responses that were silent for longer than the worker waits for them."""
        while self._open:
            oldest = next(iter(self._open.values()))
            oldest.latest = min(oldest.latest, now_ms)  # a time in the future is somebody's mistake
            if now_ms - oldest.latest <= self._idle_ms:
                return
            self._end(oldest, "abandoned", "idle_timeout", None, oldest.latest + self._idle_ms)

    def _seen(self, name: str, source: str, first_ms: int, last_ms: int | None = None) -> LiveResponse:
        """Return a response, created if it is new, and record when something of it was seen."""
        response = self.get(name)
        if response is None:
            response = self._open[name] = LiveResponse(name, source, first_ms)
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        elif name in self._open:
            self._open.move_to_end(name)
        response.began = min(response.began, first_ms)
        response.latest = max(response.latest, first_ms, last_ms or 0)
        self._changed(response)
        return response

    def _changed(self, response: LiveResponse) -> None:
        self.version += 1
        response.version = self.version

    def _change(self, response: LiveResponse, commit: Commit, change: ResponseChange) -> None:
        """Apply the effects of a batch to a response."""
        for (context, learned), entry in change.context_claims.items():
            merge_context(response.registers, context, entry, learned=learned)
        for key, part_change in change.parts.items():
            part = response.part((key.output_index, key.content_index, key.kind))
            if part is not None and part.status is None:
                _grow(part, commit, part_change)
            response.refused = response.refused or key.kind in _REFUSING
        for at, ending in change.endings.items():
            if ending.output_index is None:
                response.ends = True
                self._end(response, ending.status, ending.reason, ending.reason_class, at.entry.ms)

    def _end(
        self, response: LiveResponse, status: str, reason: str | None, reason_class: str | None, at: int
    ) -> None:
        response.status, response.reason, response.reason_class = status, reason, reason_class
        response.ended = at
        self._open.pop(response.id, None)
        self._ended[response.id] = response
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        self._changed(response)

    def _take_spike(self, message: ModerationAlert, raised: int) -> None:
        rate = message.rate
        if rate is None:
            return
        key, is_over = (rate.by, rate.name), message.type == "deltaloom.refusal.spike.ended"
        spike = self._spikes.setdefault(
            key, {"by": rate.by, "name": rate.name, "since": ms_of(rate.since), "until": None}
        )
        spike["until"] = raised if is_over else None
        while len(self._spikes) > _MAX_SPIKES:
            del self._spikes[next(iter(self._spikes))]
        self.version += 1


def _span(commit: Commit, change: ResponseChange) -> tuple[EntryId, EntryId]:
    """Return the first and the last entry of a batch that say something of a response."""
    entries = [commit.entry(index) for index in change.effect_entries]
    for part in change.parts.values():
        entries += [commit.entry(index) for index in part.entries[:1] + part.entries[-1:]]
        entries += [closing.arrival.entry for closing in part.closings]
    entries += change.context_claims.values()
    return min(entries), max(entries)


def _grow(part: LivePart, commit: Commit, change: PartChange) -> None:
    fragments = commit.fragments(change)
    part.text.add(fragments)
    for fragment in fragments:
        if len(part.timeline) == _MAX_TIMES:
            part.timeline_cut = True
            break
        part.timeline.append((fragment.arrival.entry.ms, len(fragment.delta)))
    whole = next((closing.text for closing in change.closings if closing.text), None)
    if whole is not None:
        part.text.close(whole)


def _tell(response: LiveResponse, message: AssembledText | ModerationAlert) -> None:
    """Add the context of an output."""
    for name in CONTEXT_NAMES:
        value = getattr(message, name)
        if value is not None:
            response.told.setdefault(name, value)
