"""Record the progress of the demo: the producer's events, and the output.

The producer, the observer and the receiver write to it; the view, the lines, the checks and the summary read
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

from demo.stream import PartName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from deltaloom.messages import AssembledText, DeadLetter, ModerationAlert
    from demo.pacing import Publication
    from demo.stream import Stream

T = TypeVar("T")
M = TypeVar("M", "AssembledText", "ModerationAlert")


class Arrived(NamedTuple, Generic[T]):
    """A message, and the id of its entry."""

    entry_id: str
    message: T

    @property
    def ms(self) -> int:
        """Return when the entry was added, in milliseconds since the epoch."""
        return int(self.entry_id.partition("-")[0])


class Rang(NamedTuple):
    """An alert that reached the webhook with a valid signature."""

    ms: int
    """Time of arrival, in milliseconds since the epoch."""
    message: ModerationAlert
    severity: str
    """Severity that the relay's rules give, as they do the category."""
    category: str


class Piece(NamedTuple):
    """A piece of a text that the producer has sent."""

    text: str
    mark: Literal["new", "repeat", "broken"] = "new"


class Happening(NamedTuple):
    """An event to show: a stream began, a message came, or the webhook was called."""

    at: float
    """Seconds since the programme began."""
    stream: str
    message: Arrived[AssembledText] | Arrived[ModerationAlert] | Arrived[DeadLetter] | Rang | None = None
    """Message or webhook call; None if the stream began."""
    dialect: str | None = None
    """Dialect of a stream that began, if it is translated."""


@dataclass(slots=True)
class Track:
    """The progress of one stream."""

    stream: Stream
    began: bool = False
    all_sent: bool = False
    latest: float = 0.0
    """Time of the latest publication."""
    deltas: int = 0
    sent: dict[PartName, list[Piece]] = field(default_factory=dict)
    texts: dict[PartName, Arrived[AssembledText]] = field(default_factory=dict)
    opened: Arrived[ModerationAlert] | None = None
    rang: Rang | None = None
    """Webhook call for the alert that opened."""

    @property
    def finished(self) -> bool:
        """Return whether all expected texts have come."""
        return len(self.texts) >= len(self.stream.expected)


def _ignore(_happening: Happening) -> None:
    pass


@dataclass(slots=True)
class Progress:
    """The progress of all streams, and all output."""

    streams: Sequence[Stream]
    listener: Callable[[Happening], None] = _ignore
    """Function that is called with each happening at once."""
    tapped: Mapping[str, str] = field(default_factory=dict)
    """Response id of each stream that passes through a tap, by tenant: the tap makes another id."""
    tracks: dict[str, Track] = field(init=False)
    """Progress of each stream, by response id."""
    events: int = 0
    entries: int = 0
    broken_entries: dict[str, str] = field(default_factory=dict)
    """Name of the stream of each intentionally broken entry, by entry id."""
    texts: list[Arrived[AssembledText]] = field(default_factory=list)
    alerts: list[Arrived[ModerationAlert]] = field(default_factory=list)
    letters: list[Arrived[DeadLetter]] = field(default_factory=list)
    rings: list[Rang] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Reasons for which the receiver refused requests."""
    happenings: list[Happening] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracks = {stream.response_id: Track(stream) for stream in self.streams}

    def published(self, stream: Stream, publication: Publication, entry_id: str, now: float) -> None:
        """Record an entry that was added to the input."""
        track = self.tracks[stream.response_id]
        if not track.began:
            track.began = True
            self._happened(Happening(now, stream.name, dialect=stream.plan.dialect))
        track.latest = now
        self.entries += 1
        self.events += len(publication.lines)
        for line in publication.lines:
            if line.part is not None:
                track.deltas += 1
                mark: Literal["new", "repeat"] = "repeat" if line.repeat else "new"
                track.sent.setdefault(line.part, []).append(Piece(line.delta, mark))
            elif line.broken:
                self.broken_entries[entry_id] = stream.name
                for pieces in list(track.sent.values())[-1:]:
                    pieces.append(Piece("", "broken"))

    def text_came(self, arrived: Arrived[AssembledText], now: float) -> None:
        """Record a finished text."""
        arrived = arrived._replace(message=self._named(arrived.message))
        self.texts.append(arrived)
        text = arrived.message
        track = self.tracks.get(text.response_id or "")
        if track is not None:
            track.texts[PartName(text.output_index, text.content_index, text.kind)] = arrived
        self._happened(Happening(now, self._name(text.response_id), arrived))

    def alert_came(self, arrived: Arrived[ModerationAlert], now: float) -> None:
        """Record an alert on the stream."""
        arrived = arrived._replace(message=self._named(arrived.message))
        self.alerts.append(arrived)
        alert = arrived.message
        track = self.tracks.get(alert.response_id or "")
        if track is not None and track.opened is None:
            track.opened = arrived
        self._happened(Happening(now, self._name(alert.response_id), arrived))

    def letter_came(self, arrived: Arrived[DeadLetter], response_id: str | None, now: float) -> None:
        """Record a dead letter."""
        self.letters.append(arrived)
        self._happened(Happening(now, self._name(response_id), arrived))

    def webhook_rang(self, rang: Rang, now: float) -> None:
        """Record an alert that the webhook received."""
        rang = rang._replace(message=self._named(rang.message))
        self.rings.append(rang)
        track = self.tracks.get(rang.message.response_id or "")
        if track is not None and track.rang is None:
            track.rang = rang
        self._happened(Happening(now, self._name(rang.message.response_id), rang))

    def _named(self, message: M) -> M:
        """Return a message with the response id of the programme."""
        response_id = self.tapped.get(message.tenant or "")
        return message if response_id is None else message.model_copy(update={"response_id": response_id})

    @property
    def complete(self) -> bool:
        """Return whether all has been sent, and at least the expected number of messages has come."""
        texts = sum(len(stream.expected) for stream in self.streams)
        refusals = sum(each.part.kind == "refusal" for stream in self.streams for each in stream.expected)
        letters = sum(len(stream.plan.dead_letters) for stream in self.streams)
        alerts = 2 * refusals + sum(stream.plan.alert is not None for stream in self.streams)
        return (
            all(track.all_sent for track in self.tracks.values())
            and len(self.texts) >= texts
            and len(self.alerts) >= alerts
            and len(self.rings) >= alerts
            and len(self.letters) >= letters
        )

    def _name(self, response_id: str | None) -> str:
        track = self.tracks.get(response_id or "")
        return track.stream.name if track else "(unknown)"

    def _happened(self, happening: Happening) -> None:
        self.happenings.append(happening)
        self.listener(happening)
