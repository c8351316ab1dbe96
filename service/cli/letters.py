"""The dead letters of all partitions as one list; their ids are those that the command shows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from service.cli.partitions import located, qualified
from service.storage.dead_letters import DeadLetters, StoredLetter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from redis.asyncio import Redis

    from deltaloom.streams import Partitions, StreamNames


class AllLetters:
    """What `DeadLetters` does in one partition, in whichever partition a letter is."""

    def __init__(self, client: Redis, partitions: Partitions) -> None:
        self._partitions = partitions
        self._letters = {names: DeadLetters(client, names) for names in partitions.all}

    async def count(self) -> int:
        """How many there are."""
        return sum([await letters.count() for letters in self._letters.values()])

    async def newest_first(self) -> AsyncIterator[StoredLetter]:
        """All of them, by the time at which they were written."""
        rest = [_Rest(names, letters.newest_first()) for names, letters in self._letters.items()]
        while rest := [each for each in rest if await each.look()]:
            yield max(rest, key=_Rest.age).take()

    async def oldest_first(self) -> AsyncIterator[StoredLetter]:
        """Those that are there now, partition by partition."""
        for names, letters in self._letters.items():
            async for stored in letters.oldest_first():
                yield _shown(names, stored)

    async def get(self, letter_id: str) -> StoredLetter | None:
        """One of them; None if there is no such letter (any more)."""
        names, plain_id = located(self._partitions, letter_id)
        stored = await self._letters[names].get(plain_id)
        return stored and _shown(names, stored)

    async def replay(self, letter_id: str, fields: Mapping[str, bytes]) -> str | None:
        """Put a letter's original fields back on its input; the new entry's id, None if it is gone."""
        names, plain_id = located(self._partitions, letter_id)
        entry_id = await self._letters[names].replay(plain_id, fields)
        return entry_id and qualified(names, entry_id)

    async def drop(self, letter_ids: Sequence[str]) -> int:
        """Remove letters; returns how many there were."""
        by_partition = defaultdict[DeadLetters, list[str]](list)
        for letter_id in letter_ids:
            names, plain_id = located(self._partitions, letter_id)
            by_partition[self._letters[names]].append(plain_id)
        return sum([await letters.drop(plain_ids) for letters, plain_ids in by_partition.items()])


class _Rest:
    """What is left of one partition's letters, and a look at the next of them."""

    def __init__(self, names: StreamNames, letters: AsyncIterator[StoredLetter]) -> None:
        self._names = names
        self._letters = letters
        self._next: StoredLetter | None = None

    async def look(self) -> bool:
        """Whether there is another one."""
        if self._next is None:
            self._next = await anext(self._letters, None)
        return self._next is not None

    def age(self) -> tuple[int, int]:
        """Of the next one; the newest is the greatest."""
        milliseconds, _, number = self._next.id.partition("-") if self._next else ("0", "-", "0")
        return int(milliseconds), int(number)

    def take(self) -> StoredLetter:
        """The next one, as it is shown."""
        if self._next is None:  # pragma: no cover - `look` said that there is one
            raise AssertionError
        taken, self._next = self._next, None
        return _shown(self._names, taken)


def _shown(names: StreamNames, stored: StoredLetter) -> StoredLetter:
    return stored._replace(id=qualified(names, stored.id))
