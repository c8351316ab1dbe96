"""A dead letter that is put back on the input: whole, and once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.storage.dead_letters import DeadLetters
from tests.bench import delta, done
from tests.streams import entries
from tests.workers import texts

if TYPE_CHECKING:
    from tests.bench import Bench


async def test_a_replayed_letter_is_back_as_it_was_and_gone_from_the_letters(bench: Bench) -> None:
    """Otherwise a replay loses fields of the entry, or the letter is replayed again and again."""
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
    """Otherwise a letter that nobody looked at disappears."""
    await bench.publish("{one", "{two")
    await bench.consumer().work()
    letters = DeadLetters(bench.redis, bench.names)
    one, two = [each.id async for each in letters.oldest_first()]
    assert await letters.replay(one, {"event": b"{}"}) is not None
    assert [each.id async for each in letters.oldest_first()] == [two]


async def test_a_replayed_event_is_handled(bench: Bench) -> None:
    """Otherwise a text that was held up by a mistake cannot be had after the mistake is repaired."""
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
