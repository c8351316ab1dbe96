"""The stored state of a response, as the closing rules read it, and the group's low-water mark."""

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
    from handlers.core.log import PartLog


class LowWater(NamedTuple):
    """The group's progress: the effects of every entry before `entry` are stored."""

    entry: EntryId = EntryId(0, 0)
    stalled: bool = False
    """True if the worker that holds `entry` seems to be stuck."""
    owned: Mapping[StreamKey, LowWater] = MappingProxyType({})
    """The marks of responses that have an older entry which is not yet stored.

    It is known to be theirs, and so holds back no other mark.
    """

    def of(self, stream_key: StreamKey) -> LowWater:
        """Return the mark for one response."""
        return self.owned.get(stream_key, self)

    def passed(self, entry: EntryId) -> bool:
        """Return whether the effects of an entry, and of all before it, are stored."""
        return entry < self.entry


@dataclass(frozen=True, slots=True)
class ResponseState:
    """The stored state of one response."""

    stream_key: StreamKey
    registers: Mapping[RegisterName, Register] = field(default_factory=dict)
    endings: Mapping[Arrival, Ending] = field(default_factory=dict)
    open_parts: Mapping[PartKey, PartLog] = field(default_factory=dict)
    finished_parts: Mapping[PartKey, str | None] = field(default_factory=dict)
    """The digest of each part's text; None where v0.1.0 finished the part."""
    notes: Mapping[Arrival, Note] = field(default_factory=dict)

    def context_known(self, until: EntryId) -> bool:
        """Return whether no `response.created` can add to the context of a text that this entry closes.

        A repeat of it that comes later is too late for the text, and nothing ties one to a bare item.
        """
        learned = self.registers.get(RegisterName("model", learned=True))
        context = context_of(self.registers, until)
        told = None not in {context.model, context.safety_identifier}
        return self.stream_key.by == "item" or told or (learned is not None and learned.entry <= until)
