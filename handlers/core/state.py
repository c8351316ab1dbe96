"""Define the stored state of a response, and the low-water mark of the consumer group."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from handlers.core.context import RegisterName, context_of
from handlers.core.identity import EntryId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.core.context import Register
    from handlers.core.effects import Ending, Note
    from handlers.core.identity import Arrival, PartKey, StreamKey
    from handlers.core.part_log import PartLog


class LowWater(NamedTuple):
    """The low-water mark of the consumer group: the entry before which no entry is unread or pending.

    The effects of every entry before `entry` are stored; `entry` itself may be pending. Entries of the
    responses in `owned` are an exception.
    """

    entry: EntryId = EntryId(0, 0)
    stalled: bool = False
    """True if the worker with the pending entry `entry` seems stuck: texts that are certain need not wait."""
    owned: Mapping[StreamKey, LowWater] = MappingProxyType({})
    """Low-water marks of the responses that have a pending entry before `entry`, by stream key.

    A response's mark is the oldest of these entries. They are known to hold events of this response only, so
    they hold back no other response.
    """

    def of(self, stream_key: StreamKey) -> LowWater:
        """Return the low-water mark of one response: the one in `owned`, or else this one."""
        return self.owned.get(stream_key, self)

    def passed(self, entry: EntryId) -> bool:
        """Return whether `entry` is before the mark, so that its effects and all earlier ones are stored.

        The marks in `owned` are ignored: for the events of one response, ask the mark that `of` returns.
        """
        return entry < self.entry


@dataclass(frozen=True, slots=True)
class ResponseState:
    """The stored state of one response, as the closing rules read it.

    `endings` has the endings of items and of the response, but not the applied ones that storage has deleted.
    `notes` lacks the notes next to these.
    """

    stream_key: StreamKey
    registers: Mapping[RegisterName, Register] = field(default_factory=dict)
    endings: Mapping[Arrival, Ending] = field(default_factory=dict)
    open_parts: Mapping[PartKey, PartLog] = field(default_factory=dict)
    finished_parts: Mapping[PartKey, str | None] = field(default_factory=dict)
    """Digest of each finished part's text.

    None if no digest is stored: the part is a copy, v0.1.0 has finished it, or another worker has finished it
    since the state was read.
    """
    notes: Mapping[Arrival, Note] = field(default_factory=dict)

    def context_known(self, until: EntryId) -> bool:
        """Return whether a text that the entry `until` closes has its final context.

        A pending `response.created` could add to the context. The context counts as final in three cases:

        1. The entries up to and including `until` give a model and a safety identifier.
        2. An event of the response in one of these entries gives the model.
        3. The producer gave no response id, so no `response.created` refers to the state.
        """
        learned = self.registers.get(RegisterName("model", learned=True))
        context = context_of(self.registers, until)
        complete = None not in {context.model, context.safety_identifier}
        return self.stream_key.by == "item" or complete or (learned is not None and learned.entry <= until)
