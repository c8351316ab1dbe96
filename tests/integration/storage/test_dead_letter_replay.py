"""Replay of dead letters: the original entry returns to the input unchanged, and once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.storage.letter_store import DeadLetters
from tests.bench import delta, done
from tests.streams import entries
from tests.workers import texts

if TYPE_CHECKING:
    from tests.bench import Bench


async def test_a_replayed_letter_is_back_as_it_was_and_gone_from_the_letters(bench: Bench) -> None:
    """Otherwise a replay would lose fields of the entry, or be possible again and again."""
    await bench.publish("{broken")
    await bench.consumer().work()
    ((original, fields),) = await entries(bench.redis, bench.names.deltas)
    letters = DeadLetters(bench.redis, bench.names)
    (letter,) = [each async for each in letters.oldest_first()]
    given = {name.decode(): value for name, value in fields.items()}
    replayed = await letters.replay(letter.id, given)
    assert await letters.replay(letter.id, given) is None
    (first, again) = await entries(bench.redis, bench.names.deltas)
    assert (first, again) == ((original, fields), (replayed, fields))
    assert await letters.count() == 0


async def test_only_the_letter_that_is_named_is_replayed(bench: Bench) -> None:
    """Otherwise a dead letter would be removed that was not replayed."""
    await bench.publish("{one", "{two")
    await bench.consumer().work()
    letters = DeadLetters(bench.redis, bench.names)
    one, two = [each.id async for each in letters.oldest_first()]
    assert await letters.replay(one, {"event": b"{}"}) is not None
    assert [each.id async for each in letters.oldest_first()] == [two]


async def test_a_replayed_event_is_handled(bench: Bench) -> None:
    """Otherwise the effect of an entry would be lost although its mistake was repaired."""
    await bench.publish(delta(1, "a"), "{broken")
    await bench.consumer().work()
    letters = DeadLetters(bench.redis, bench.names)
    (letter,) = [each async for each in letters.oldest_first()]
    await bench.publish(done("a"))
    (*_, (_, fields)) = await entries(bench.redis, bench.names.deltas)
    await bench.redis.xtrim(bench.names.deltas, maxlen=2, approximate=False)
    await letters.replay(letter.id, {name.decode(): value for name, value in fields.items()})
    await bench.consumer().work()
    assert [text.text for text in await texts(bench.redis, bench.prefix)] == ["a"]
