"""Combine the dead letters of all partitions; ids are those that the command shows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from service.cli.partitions import located, qualified
from service.storage.letter_store import DeadLetters, StoredLetter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames


class AllLetters:
    """The dead letters of all partitions; see `DeadLetters` for one partition."""

    def __init__(self, client: Redis, partitions: Partitions) -> None:
        self._partitions = partitions
        self._letters = {names: DeadLetters(client, names) for names in partitions.all}

    async def count(self) -> int:
        """Return the number of dead letters."""
        return sum([await letters.count() for letters in self._letters.values()])

    async def newest_first(self) -> AsyncIterator[StoredLetter]:
        """Yield all dead letters, the newest first."""
        rest = [_Rest(names, letters.newest_first()) for names, letters in self._letters.items()]
        while rest := [each for each in rest if await each.look()]:
            yield max(rest, key=_Rest.age).pop()

    async def oldest_first(self) -> AsyncIterator[StoredLetter]:
        """Yield the present dead letters, partition by partition."""
        for names, letters in self._letters.items():
            async for stored in letters.oldest_first():
                yield _shown(names, stored)

    async def get(self, letter_id: str) -> StoredLetter | None:
        """Return a dead letter by its shown id; None if it does not exist."""
        names, plain_id = located(self._partitions, letter_id)
        stored = await self._letters[names].get(plain_id)
        return stored and _shown(names, stored)

    async def replay(self, letter_id: str, fields: Mapping[str, bytes]) -> str | None:
        """Put a letter's original fields back on its input; return the new entry's id, None if it is gone."""
        names, plain_id = located(self._partitions, letter_id)
        entry_id = await self._letters[names].replay(plain_id, fields)
        return entry_id and qualified(names, entry_id)

    async def drop(self, letter_ids: Sequence[str]) -> int:
        """Remove dead letters, and return how many of them existed."""
        by_partition = defaultdict[DeadLetters, list[str]](list)
        for letter_id in letter_ids:
            names, plain_id = located(self._partitions, letter_id)
            by_partition[self._letters[names]].append(plain_id)
        return sum([await letters.drop(plain_ids) for letters, plain_ids in by_partition.items()])


class _Rest:
    """The remaining letters of one partition, with a look-ahead of one."""

    def __init__(self, names: StreamNames, letters: AsyncIterator[StoredLetter]) -> None:
        self._names = names
        self._letters = letters
        self._next: StoredLetter | None = None

    async def look(self) -> bool:
        """Return whether another letter remains."""
        if self._next is None:
            self._next = await anext(self._letters, None)
        return self._next is not None

    def age(self) -> tuple[int, int]:
        """Return the sort key of the next letter; the newest letter has the greatest."""
        milliseconds, _, number = self._next.id.partition("-") if self._next else ("0", "-", "0")
        return int(milliseconds), int(number)

    def pop(self) -> StoredLetter:
        """Remove and return the next letter, with its shown id."""
        if self._next is None:  # pragma: no cover - `look` returned true
            raise AssertionError
        taken, self._next = self._next, None
        return _shown(self._names, taken)


def _shown(names: StreamNames, stored: StoredLetter) -> StoredLetter:
    return stored._replace(id=qualified(names, stored.id))
