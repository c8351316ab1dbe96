"""A publisher that keeps what it is offered, and the events that a body must give."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltaloom.dialects import Translator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltaloom.dialects import EndReason, Event


@dataclass
class Recorded:
    """A stream that keeps what it is offered."""

    response_id: str
    context: dict[str, str | None]
    events: list[Event] = field(default_factory=list)
    ended: int = 0

    def offer(self, events: Sequence[Event]) -> None:
        """Keep events."""
        assert not self.ended
        self.events += events

    def end(self) -> None:
        """Count an end."""
        self.ended += 1


class Recorder:
    """A publisher that keeps what it is offered."""

    def __init__(self) -> None:
        self.streams: list[Recorded] = []

    def stream(self, response_id: str | None = None, **context: str | None) -> Recorded:
        """Begin a stream."""
        assert response_id
        self.streams.append(Recorded(response_id, context))
        return self.streams[-1]

    @property
    def only(self) -> Recorded:
        """Return the only stream."""
        (stream,) = self.streams
        return stream

    @property
    def events(self) -> list[Event]:
        """Return the events of the only stream, with the response id `r`."""
        return with_id(self.only)

    @property
    def types(self) -> list[str]:
        """Return the types of the only stream's events."""
        return [event["type"] for event in self.only.events]

    @property
    def end(self) -> dict[str, Any]:
        """Return the response in the last event of the only stream, which has ended."""
        assert self.only.ended == 1
        response: dict[str, Any] = self.only.events[-1]["response"]
        return response


class Faulty:
    """A publisher that raises what its contract excludes.

    Args:
        method: the method that raises: `stream`, `offer` or `end`.
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self.response_id = "r"

    def stream(self, response_id: str | None = None, **_: str | None) -> Faulty:
        """Begin a stream."""
        self._fail("stream")
        self.response_id = str(response_id)
        return self

    def offer(self, _: Sequence[Event]) -> None:
        """Take events."""
        self._fail("offer")

    def end(self) -> None:
        """End the stream."""
        self._fail("end")

    def _fail(self, method: str) -> None:
        if method == self._method:
            raise RuntimeError("a secret text")


def with_id(stream: Recorded) -> list[Event]:
    """Return the events of a stream with the response id `r`."""
    events: list[Event] = json.loads(json.dumps(stream.events).replace(stream.response_id, "r"))
    return events


def expected(body: bytes, reason: EndReason = "complete", **options: Any) -> list[Event]:
    """Return the events that a translator gives for a body."""
    translator = Translator(response_id="r", **options)
    events: list[Event] = json.loads(json.dumps(translator.feed(body) + translator.end(reason)))
    return events
