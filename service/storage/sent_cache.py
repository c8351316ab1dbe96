"""What storage was told already, so that it need not be told with every batch.

Nearly all that comes is one more delta of a part that is there. Of such a part neither the item id nor the
context has to be sent, nor the time to live be set: if this process has sent them, and lately. The script
says so if what was left out is not there after all (the server lost its memory): then it is told again.
Forgetting costs a few bytes more on the way. So a response is forgotten when it has ended, and so are those
that are not in use where there are too many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.core.identity import EntryId
from service.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.core.identity import PartKey, StreamKey
    from service.ports.commit import Said

_RESPONSES = 10_000
"""Of so many responses it is remembered, or of twice as many."""

_SAID = 8
"""Of so many things that were said of a response it is known at one look that they were told. There are two
or three; but some producers say another `traceparent` with each event."""

_NEVER = EntryId(2**64, 0)
"""Later than any entry."""


class ToldPart:
    """A part that this process has added to."""

    __slots__ = ("_ids_differ", "_item_id", "_named", "due", "field", "large", "log")

    def __init__(self, field: str, log: str) -> None:
        self.field = field
        self.log = log
        """Its log's key."""
        self._item_id: str | None = None
        self._named: EntryId | None = None
        """The earliest entry whose item id the log has from this process."""
        self._ids_differ = False
        self.due = 0.0
        """When its time to live has to be set again, on the monotonic clock; 0: it never was."""
        self.large = False
        """Whether its log may be near its limits, so that every chunk has to be looked at."""

    def has_name(self, item_id: str | None, entry: EntryId, *, ids_differ: bool) -> bool:
        """Whether storage has all that some events say by their item ids; the earliest one's is given."""
        if item_id is None:
            return True
        if self._named is None or entry < self._named:
            return False
        return self._ids_differ or (item_id == self._item_id and not ids_differ)

    def tell_name(self, item_id: str | None, entry: EntryId, *, ids_differ: bool) -> None:
        """Remember that this was sent."""
        if item_id is None:
            return
        self._ids_differ = self._ids_differ or ids_differ or self._item_id not in {None, item_id}
        if self._named is None or entry < self._named:
            self._item_id, self._named = item_id, entry


class ToldResponse:
    """A response that this process has added to."""

    __slots__ = ("_said", "_since", "expected_ms", "member", "parts", "state")

    def __init__(self, member: str, state: str) -> None:
        self.member = member
        self.state = state
        """Its state's key."""
        self.expected_ms = 0
        """Until when it is noted as not idle, without another word."""
        self.parts: dict[PartKey, ToldPart] = {}
        self._since: dict[tuple[str, bool], EntryId] = {}
        """Of each of its registers, the earliest entry that was sent: a later one changes nothing."""
        self._said: dict[Said, EntryId] = {}
        """What was sent, as it was said: nearly always the same."""

    def knows(self, said: Mapping[Said, EntryId]) -> bool:
        """Whether all this was sent before, or changes nothing."""
        for each, entry in said.items():
            before = self._said.get(each)
            if (before is None or entry < before) and not self._has_earlier(each, entry):
                return False
        return True

    def _has_earlier(self, said: Said, entry: EntryId) -> bool:
        """Whether each of its registers was sent with an entry that is as early."""
        context, learned = said
        return all(self._since.get((name, learned), _NEVER) <= entry for name, _ in context.pairs())

    def tell(self, said: Mapping[Said, EntryId]) -> None:
        """Remember that all this was sent."""
        for each, entry in said.items():
            context, learned = each
            if each in self._said or len(self._said) < _SAID:
                self._said[each] = min(entry, self._said.get(each, entry))
            for name, _ in context.pairs():
                self._since[name, learned] = min(entry, self._since.get((name, learned), entry))


class Told:
    """All of them."""

    def __init__(self) -> None:
        self._responses: Recent[StreamKey, ToldResponse] = Recent(_RESPONSES)

    def get(self, key: StreamKey) -> ToldResponse | None:
        """A response, if something of it was sent."""
        return self._responses.get(key)

    def keep(self, key: StreamKey, response: ToldResponse) -> None:
        """Remember one."""
        self._responses[key] = response

    def forget(self, key: StreamKey) -> None:
        """Tell everything of a response again."""
        self._responses.discard(key)
