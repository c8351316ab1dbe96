"""What a handler may ask for. A handler returns effects; it never does anything itself."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.identity import Arrival, PartKey, StreamKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.messages import Kind, Status


class UnattributableEventError(ValueError):
    """The producer sent an event that belongs to no response: give `response_id`, or an `item_id`."""

    def __init__(self) -> None:
        super().__init__(
            "the event has no item_id and its entry no response_id, so it belongs to nothing; "
            "publish it with the field response_id"
        )


class Context(NamedTuple):
    """Whose text it is, and where it came from."""

    tenant: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    traceparent: str | None = None
    provider: str | None = None
    upstream_provider: str | None = None
    dialect: str | None = None
    upstream_response_id: str | None = None
    reference: str | None = None
    truncated: tuple[str, ...] = ()
    """The names of values that were left out because they were too long, sorted."""

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Return the names and values that are there; a name left out counts as a value of its own."""
        for name in CONTEXT_NAMES:
            value = getattr(self, name)
            if value is not None:
                yield name, value
        for name in self.truncated:
            yield TRUNCATED + name, ""


TRUNCATED = "truncated:"
"""The prefix of a name whose value was left out, in `Context.pairs`."""

CONTEXT_NAMES = Context._fields[:-1]
"""The fields that a producer may set."""


class Origin(NamedTuple):
    """Where an event came from: its arrival, and what its producer said of it."""

    arrival: Arrival
    response_id: str | None = None
    context: Context = Context()

    def stream_key(self, item_id: str | None) -> StreamKey:
        """What the event belongs to; `UnattributableEventError` if there is neither id."""
        if self.response_id is not None:
            return StreamKey("response", self.response_id)
        if item_id is not None:
            return StreamKey("item", item_id)
        raise UnattributableEventError


class Rank(IntEnum):
    """How much an authoritative text is worth; the lower number wins."""

    DONE = 0
    CONTENT_PART = 1
    OUTPUT_ITEM = 2
    RESPONSE = 3


class Fragment(NamedTuple):
    """A piece of a part's text."""

    part: PartKey
    delta: str
    sequence_number: int | None = None
    item_id: str | None = None


class Closing(NamedTuple):
    """An event that closes one part and says what its text is (empty if it does not say)."""

    part: PartKey
    rank: Rank
    text: str
    item_id: str | None = None


class Copy(NamedTuple):
    """A part as the response's final copy has it. `position` is its item's index in that copy."""

    item_id: str | None
    position: int
    content_index: int
    kind: Kind
    text: str


class Ending(NamedTuple):
    """An event that closes whatever is still open: of one output item, or of the whole response."""

    stream_key: StreamKey
    output_index: int | None
    status: Status
    reason: str | None = None
    copies: tuple[Copy, ...] = ()


class Learned(NamedTuple):
    """What an event says of its response, for producers that do not say it themselves."""

    stream_key: StreamKey
    model: str | None = None
    safety_identifier: str | None = None


Effect = Fragment | Closing | Ending | Learned
