"""Define the effects that a handler returns. The worker applies them; a handler does no I/O."""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from deltaloom import limits
from handlers.core.identity import Arrival, PartKey, StreamKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deltaloom.messages import IntegritySource, Kind, Status
    from deltaloom.reasons import ReasonClass


class UnattributableEventError(ValueError):
    """An event cannot be attributed to a response: it has no usable `response_id` or `item_id`."""

    def __init__(
        self,
        what: str = "the event has no item_id, and its entry has no response_id",
    ) -> None:
        super().__init__(f"{what}; publish it with the field response_id")


class ContextValues(NamedTuple):
    """The context values of an entry, an event or a text; None for a value that is not given.

    They come from the producer, or are learned from events.
    """

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
    """Sorted names of values that were left out because they were too long, alone or together, or not UTF-8.

    Each is a name in `TRUNCATABLE`, which has more names than these fields, such as `item_id`.
    """

    def pairs(self) -> list[tuple[str, str]]:
        """Return (name, value) for each value that is set, and (`TRUNCATED` + name, "") for each left out."""
        values: Iterable[Any] = self  # zip leaves the last one out
        pairs = [
            (name, value) for name, value in zip(CONTEXT_NAMES, values, strict=False) if value is not None
        ]
        if self.truncated:
            pairs += [(TRUNCATED + name, "") for name in self.truncated]
        return pairs


TRUNCATED = "truncated:"
"""Prefix by which `ContextValues.pairs` marks the names of values that were too long and are left out."""

CONTEXT_NAMES = ContextValues._fields[:-1]
"""Names of the context fields that a producer may set, in the order of `ContextValues`."""

TRUNCATABLE = (
    *CONTEXT_NAMES,
    "item_id",
    "reason",
    "reason_class",
    "provider_category",
    "provider_explanation",
    "from_model",
    "to_model",
    "trigger",
)
"""Names of the values of an entry or event that are left out if they are too long."""


class Origin(NamedTuple):
    """The origin of an event: its arrival, and the producer context of its entry."""

    arrival: Arrival
    response_id: str | None = None
    context: ContextValues = ContextValues()

    def stream_key(self, item_id: str | None) -> StreamKey:
        """Return the stream key of the event, from its entry's response id, else from the event's item id.

        Raises:
            UnattributableEventError: the entry has no response id, and the item id is missing or too long.
        """
        if self.response_id is not None:
            return StreamKey("response", self.response_id)
        if item_id is None:
            raise UnattributableEventError
        if len(item_id) > limits.ID:
            raise UnattributableEventError(
                f"item_id has {len(item_id)} characters, at most {limits.ID}, and there is no response_id"
            )
        return StreamKey("item", item_id)

    def response_key(self, response_id: str | None) -> StreamKey:
        """Return the stream key of an event about a whole response.

        The response id of the entry counts. `response_id` is the one that the event itself gives; it counts
        if the entry has none.

        Raises:
            UnattributableEventError: the response id is missing or too long.
        """
        response_id = self.response_id or response_id
        if response_id is None:
            raise UnattributableEventError("the event and its entry have no response_id")
        if len(response_id) > limits.ID:
            raise UnattributableEventError(
                f"response_id has {len(response_id)} characters; at most {limits.ID}"
            )
        return StreamKey("response", response_id)


class Rank(IntEnum):
    """The precedence of the authoritative texts that one event gives a part; the lower number wins.

    `DONE` is the text's own `.done`. `CONTENT_PART` is the `.done` of its content part, or of its part of a
    summary. `OUTPUT_ITEM` is the `.done` of its item. `RESPONSE` is the final copy.
    """

    DONE = 0
    CONTENT_PART = 1
    OUTPUT_ITEM = 2
    RESPONSE = 3


class Fragment(NamedTuple):
    """A delta of a part's text."""

    part: PartKey
    delta: str
    sequence_number: int | None = None
    item_id: str | None = None


class Checksum(NamedTuple):
    """A checksum of a text, given by an event in place of the text."""

    sha256: str
    """SHA-256 of the text's UTF-8, in hexadecimal; upper or lower case."""
    size: int | None = None
    """Bytes of the text's UTF-8; None if not given."""

    def fits(self, text: str) -> bool:
        """Return whether a text has this checksum, and this size if it is given.

        The text must be repaired: a lone surrogate raises UnicodeEncodeError.
        """
        data = text.encode()
        same_size = self.size is None or self.size == len(data)
        return same_size and sha256(data).hexdigest() == self.sha256.lower()


class Closing(NamedTuple):
    """An event that closes one part and gives its text; the text is empty if the event gives none."""

    part: PartKey
    rank: Rank
    text: str
    item_id: str | None = None
    checksum: Checksum | None = None
    source: IntegritySource = "provider"
    """Writer of the text or of its checksum."""
    redacted: bool = False
    """True if the provider withholds the text."""


class Copy(NamedTuple):
    """A text and its place in an event that ends a response or an item, or that announces texts.

    In the ending of an item, it has a place only: its text is empty, and its item id None.
    """

    item_id: str | None
    output_position: int
    """Index of the item in a response's final copy, from 0; in other events, the `output_index`."""
    content_index: int
    """Index of the text in its item's content; for a text in a summary, in that summary."""
    kind: Kind
    text: str


class Ending(NamedTuple):
    """An event that ends one output item or the whole response, and closes its parts that began before.

    The end of an item leaves a part without a text open.
    """

    stream_key: StreamKey
    output_index: int | None
    """Index of the item; None for the end of a response, or of an item that is its own stream key."""
    status: Status
    reason: str | None = None
    copies: tuple[Copy, ...] = ()
    """Final copy of the response.

    For an item, the places of its texts, with empty texts: the texts are in closings of the same event.
    """
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    class_left_out: bool = False
    """True if the producer's reason class was too long, so that `reason_class` is derived from the reason."""


class Learned(NamedTuple):
    """Context values learned from an event; they apply if the producer gives none in the entry's metadata."""

    stream_key: StreamKey
    model: str | None = None
    safety_identifier: str | None = None


class Loss(NamedTuple):
    """A producer's report that it dropped events before they reached the stream."""

    stream_key: StreamKey | None
    """The response; None if the report does not name one, so that it is only counted."""
    dropped: int = 1
    """Number of dropped events."""


class Announced(NamedTuple):
    """Texts that an event gives for parts that it begins. Normally the deltas of the part repeat them."""

    stream_key: StreamKey
    copies: tuple[Copy, ...]


class ModelChange(NamedTuple):
    """A provider's change to another model within one response."""

    from_model: str | None = None
    to_model: str | None = None
    trigger: str | None = None
    """Reason of the change, as the provider gives it."""


class Fallback(NamedTuple):
    """A producer's report that the provider answered with another model, because the first one refused."""

    stream_key: StreamKey
    change: ModelChange


Effect = Fragment | Closing | Ending | Learned | Loss | Announced | Fallback


class Note(NamedTuple):
    """Rare attributes of an event, stored next to its closing or ending, if the event has one.

    A loss, announced texts and a change of the model are stored as a note alone.
    """

    checksum: Checksum | None = None
    source: IntegritySource = "provider"
    redacted: bool = False
    loss: bool = False
    """True if the event reports that the producer dropped events."""
    status: Status | None = None
    """Actual status of an ending that is stored with another one, for workers of v0.1.0; else None."""
    reason_class: ReasonClass | None = None
    provider_category: str | None = None
    provider_explanation: str | None = None
    announced: tuple[Copy, ...] = ()
    """Texts that the event gives for parts that it begins."""
    fallback: ModelChange | None = None
    """Change of the model that the event reports; None if it reports none."""


NO_NOTE = Note()
"""The note of an event without any of these attributes, as nearly all are."""
