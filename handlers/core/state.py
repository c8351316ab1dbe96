"""The stored state of a response, as the closing rules read it, and the group's low-water mark."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    def has_refusal(self, until: EntryId) -> bool:
        """Return whether a part of the response is a refusal that began with or before this entry."""
        return any(part.kind == "refusal" for part in self.finished_parts) or any(
            part.kind == "refusal" and log.began <= until for part, log in self.open_parts.items()
        )

    def has_loss(self, until: EntryId) -> bool:
        """Return whether the producer reported a loss with or before this entry."""
        return any(note.loss and arrival.entry <= until for arrival, note in self.notes.items())

    def has_ended(self, before: EntryId) -> bool:
        """Return whether the response ended before this entry, as far as that is still to be settled."""
        return any(end.output_index is None and at.entry < before for at, end in self.endings.items())

    def context_known(self, until: EntryId) -> bool:
        """Return whether no `response.created` can add to the context of a text that this entry closes.

        A repeat of it that comes later is too late for the text, and nothing ties one to a bare item.
        """
        learned = self.registers.get(RegisterName("model", learned=True))
        context = context_of(self.registers, until)
        told = None not in {context.model, context.safety_identifier}
        return self.stream_key.by == "item" or told or (learned is not None and learned.entry <= until)


def concerns(arrival: Arrival, ending: Ending, part: PartKey, log: PartLog) -> bool:
    """Return whether an ending closes a part: its scope includes the part, and the part had begun."""
    return ending.output_index in {None, part.output_index} and log.began <= arrival.entry
