"""Dead letters in Redis: look at them, put them back on the input once each, drop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from deltaloom.messages import DeadLetter
from service.field_json import json_of
from service.storage import foreign, scripts
from service.storage import pages as reading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from redis.asyncio import Redis

    from deltaloom.streams import StreamNames


MOST_FIELDS = 3900
"""Fields of an entry that can be put back: a script passes at most 8,000 values on to a command."""


class CannotReplayError(ValueError):
    """The original entry cannot be written again; the text is a phrase that says why."""


class StoredLetter(NamedTuple):
    """A dead letter and its id."""

    id: str
    letter: DeadLetter


class DeadLetters:
    """The dead letters of one partition.

    Errors of the server come as redis-py raises them. An entry that another program wrote among the letters
    looks like one with the reason `FOREIGN`.
    """

    def __init__(self, client: Redis, names: StreamNames) -> None:
        self._client = client
        self._names = names
        self._replay = scripts.Script(client, "replay")

    async def count(self) -> int:
        """How many there are."""
        return int(await self._client.xlen(self._names.dead_letters))

    async def newest_first(self) -> AsyncIterator[StoredLetter]:
        """All of them."""
        async for entry in reading.backwards(self._client, self._names.dead_letters):
            yield self._stored(entry)

    async def oldest_first(self) -> AsyncIterator[StoredLetter]:
        """Those that are there now; what becomes one meanwhile, by a replay for one, is left out."""
        async for entry in reading.forwards(self._client, self._names.dead_letters):
            yield self._stored(entry)

    async def get(self, letter_id: str) -> StoredLetter | None:
        """One of them; None if there is no such letter (any more)."""
        entry = await reading.entry(self._client, self._names.dead_letters, letter_id)
        return None if entry is None else self._stored(entry)

    async def replay(self, letter_id: str, fields: Mapping[str, bytes]) -> str | None:
        """Put a letter's original fields back on the input and remove it, once, whoever else tries too.

        Returns:
            The new entry's id; None if there is no such letter (any more).

        Raises:
            CannotReplayError: it has no field, or too many.
        """
        if not 0 < len(fields) <= MOST_FIELDS:
            raise CannotReplayError(f"its entry has {len(fields)} fields, and only 1 to {MOST_FIELDS} can be")
        arguments = [part for pair in fields.items() for part in pair]
        keys = [self._names.dead_letters, self._names.deltas]
        entry: bytes | None = await self._replay(keys=keys, args=[letter_id, *arguments])
        return None if entry is None else entry.decode()

    async def drop(self, letter_ids: Sequence[str]) -> int:
        """Remove letters; returns how many there were."""
        return int(await self._client.xdel(self._names.dead_letters, *letter_ids)) if letter_ids else 0

    def _stored(self, entry: reading.StreamEntry) -> StoredLetter:
        entry_id, fields = entry
        try:
            values = {name.decode(): value.decode() for name, value in fields.items()}
            return StoredLetter(entry_id, DeadLetter.model_validate(values))
        except ValueError:  # no UTF-8, or pydantic's error
            letter = DeadLetter(
                reason=foreign.FOREIGN,
                error=f"{foreign.WHAT_IT_IS}; drop removes it",
                stream=self._names.dead_letters,
                entry_id=entry_id,
                deliveries=1,
                failed_at=foreign.came_at(entry_id),
                entry=json_of(fields),
            )
            return StoredLetter(entry_id, letter)
