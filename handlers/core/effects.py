"""What a handler may ask for. A handler returns effects; it never does anything itself."""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from deltaloom import limits
from handlers.core.identity import Arrival, PartKey, StreamKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deltaloom.messages import IntegritySource, Kind, Status
    from deltaloom.reasons import ReasonClass


class UnattributableEventError(ValueError):
    """The producer sent an event that belongs to no response: give `response_id`, or an `item_id`."""

    def __init__(
        self,
        what: str = "the event has no item_id and its entry no response_id, so it belongs to nothing",
    ) -> None:
        super().__init__(f"{what}; publish it with the field response_id")


class Context(NamedTuple):
    """The producer context of a text: who asked for it, and where it came from."""

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
        """Yield the names and values that are set; each name in `truncated` makes a pair of its own."""
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

TRUNCATABLE = (
    *CONTEXT_NAMES,
    "item_id",
    "reason",
    "reason_class",
    "provider_category",
    "provider_explanation",
)
"""The names of the values that are left out if they are too long."""


class Origin(NamedTuple):
    """Where an event came from: its arrival, and what its producer said of it."""

    arrival: Arrival
    response_id: str | None = None
    context: Context = Context()

    def stream_key(self, item_id: str | None) -> StreamKey:
        """What the event belongs to; `UnattributableEventError` if there is neither id."""
        if self.response_id is not None:
            return StreamKey("response", self.response_id)
        if item_id is None:
            raise UnattributableEventError
        if len(item_id) > limits.ID:
            raise UnattributableEventError(
                f"item_id has {len(item_id)} characters, at most {limits.ID}, and there is no response_id"
            )
        return StreamKey("item", item_id)


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


class Checksum(NamedTuple):
    """A checksum that an event gives in place of a text."""

    sha256: str
    """The SHA-256 of the text's UTF-8, in hexadecimal."""
    size: int | None = None
    """The bytes of the text's UTF-8."""

    def fits(self, text: str) -> bool:
        """Return whether a text has this checksum."""
        data = text.encode()
        same_size = self.size is None or self.size == len(data)
        return same_size and sha256(data).hexdigest() == self.sha256.lower()


class Closing(NamedTuple):
    """An event that closes one part and says what its text is (empty if it does not say)."""

    part: PartKey
    rank: Rank
    text: str
    item_id: str | None = None
    checksum: Checksum | None = None
    source: IntegritySource = "provider"
    """The writer of the text."""
    redacted: bool = False
    """The provider withheld the text."""


class Copy(NamedTuple):
    """A part as a copy of its response or of its item has it.

    `position` is the item's index in the response's final copy, elsewhere its `output_index`.
    """

    item_id: str | None
    position: int
    content_index: int
    kind: Kind
    text: str


class Ending(NamedTuple):
    """An event that closes whatever is still open: of one output item, or of the whole response.

    The `copies` of an item's end say where its texts are, and leave out the texts: closings have those.
    """

    stream_key: StreamKey
    output_index: int | None
    status: Status
    reason: str | None = None
    copies: tuple[Copy, ...] = ()
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    class_left_out: bool = False
    """The producer's class is too long, so the table's stands in its place."""


class Learned(NamedTuple):
    """What an event says of its response, for producers that do not say it themselves."""

    stream_key: StreamKey
    model: str | None = None
    safety_identifier: str | None = None


class Loss(NamedTuple):
    """A producer's report that events of a response were dropped before they reached the stream."""

    stream_key: StreamKey


class Announced(NamedTuple):
    """Texts that an event gives for parts that have just begun: whole, or a piece that deltas repeat."""

    stream_key: StreamKey
    copies: tuple[Copy, ...]


Effect = Fragment | Closing | Ending | Learned | Loss | Announced


class Note(NamedTuple):
    """The rare attributes of an event, stored apart from its closing or ending."""

    checksum: Checksum | None = None
    source: IntegritySource = "provider"
    redacted: bool = False
    loss: bool = False
    status: Status | None = None
    """The status of an ending that is stored with another one, which workers of v0.1.0 can read."""
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    announced: tuple[Copy, ...] = ()
    """Texts of parts that have just begun."""
