"""Dead letters in Redis: list, replay and delete them."""

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


MAX_FIELDS = 3900
"""Maximum fields of an entry that can be replayed: a script passes at most 8,000 values to a command."""


class CannotReplayError(ValueError):
    """The original entry cannot be written again; the message is a phrase with the reason."""


class StoredLetter(NamedTuple):
    """A dead letter and its id."""

    id: str
    letter: DeadLetter


class DeadLetters:
    """The dead letters of one partition.

    Errors of redis-py are raised unchanged. An entry that another program wrote to the stream appears as a
    letter with the reason `FOREIGN`.
    """

    def __init__(self, client: Redis, names: StreamNames) -> None:
        self._client = client
        self._names = names
        self._replay = scripts.Script(client, "replay")

    async def count(self) -> int:
        """Return the number of letters, including foreign entries."""
        return int(await self._client.xlen(self._names.dead_letters))

    async def newest_first(self) -> AsyncIterator[StoredLetter]:
        """Yield the letters that exist when the iteration begins, the newest first."""
        async for entry in reading.backwards(self._client, self._names.dead_letters):
            yield self._stored(entry)

    async def oldest_first(self) -> AsyncIterator[StoredLetter]:
        """Yield the letters that exist when the iteration begins, the oldest first.

        Letters that a replay of the others adds meanwhile are left out.
        """
        async for entry in reading.forwards(self._client, self._names.dead_letters):
            yield self._stored(entry)

    async def get(self, letter_id: str) -> StoredLetter | None:
        """Return a letter, or None if it does not exist."""
        entry = await reading.entry(self._client, self._names.dead_letters, letter_id)
        return None if entry is None else self._stored(entry)

    async def replay(self, letter_id: str, fields: Mapping[str, bytes]) -> str | None:
        """Add `fields`, those of a letter's original entry, to the input and delete the letter, atomically.

        Returns:
            The new entry's id; None if the letter does not exist, so that nothing was added.

        Raises:
            CannotReplayError: `fields` is empty or has more than `MAX_FIELDS` fields.
        """
        if not 0 < len(fields) <= MAX_FIELDS:
            raise CannotReplayError(
                f"its entry has {len(fields)} fields; only 1 to {MAX_FIELDS} are possible"
            )
        arguments = [part for pair in fields.items() for part in pair]
        keys = [self._names.dead_letters, self._names.deltas]
        entry: bytes | None = await self._replay(keys=keys, args=[letter_id, *arguments])
        return None if entry is None else entry.decode()

    async def drop(self, letter_ids: Sequence[str]) -> int:
        """Delete letters; return the number that existed."""
        return int(await self._client.xdel(self._names.dead_letters, *letter_ids)) if letter_ids else 0

    def _stored(self, entry: reading.StreamEntry) -> StoredLetter:
        entry_id, fields = entry
        try:
            values = {name.decode(): value.decode() for name, value in fields.items()}
            return StoredLetter(entry_id, DeadLetter.model_validate(values))
        except ValueError:  # not UTF-8, or a validation error of pydantic
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
