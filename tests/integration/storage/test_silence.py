"""When an open response counts as silent: never while something of it is on its way.

The entries of these tests have ids of the past, so that nothing has to be waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.storage import commit_plan
from tests.bench import COMPLETED, KEEPALIVE, Bench, delta, done
from tests.workers import texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

IDLE_MS = 60_000
SECOND = 1000


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a partition that gives a text up after a minute."""
    return Bench(redis, prefix, idle_timeout=IDLE_MS / 1000)


async def sweep(bench: Bench) -> list[str]:
    """Sweep as another worker, and return the texts that have come out so far."""
    await bench.consumer("sweeper").worker.sweep()
    return [text.text for text in await texts(bench.redis, bench.prefix)]


async def test_a_text_is_given_up_once_nothing_came_for_the_timeout(bench: Bench) -> None:
    """Otherwise a cut connection leaves its text open for ever, or takes it away too early."""
    now_ms = await bench.now_ms()
    grain = commit_plan.IDLE_GRAIN_MS
    await bench.publish_at(now_ms - IDLE_MS - grain - SECOND, delta(1, "silent"), response_id="silent")
    await bench.publish_at(now_ms - IDLE_MS + 30 * SECOND, delta(1, "alive"), response_id="alive")
    await bench.consumer().work()
    assert await sweep(bench) == ["silent"]
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.status, text.reason, text.integrity) == ("abandoned", "idle_timeout", "unverified")
    assert abs(text.finished_at.timestamp() * 1000 - now_ms) < 30 * SECOND


async def test_what_is_unread_has_not_come_yet(bench: Bench) -> None:
    """Otherwise the first worker after a long outage gives up every text whose end it has yet to read."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    await bench.publish_at(long_ago, delta(1, "a"))
    await bench.consumer().work()
    await bench.publish_at(long_ago + SECOND, delta(2, "b"), done("ab"))
    assert await sweep(bench) == []
    await bench.consumer().work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("ab", "verified")


async def test_a_text_that_is_given_up_in_the_streams_time_says_when_that_was(bench: Bench) -> None:
    """Otherwise after a long outage it looks as if texts had been given up while nobody worked."""
    now_ms = await bench.now_ms()
    for number, event in enumerate((delta(1, "a"), KEEPALIVE, KEEPALIVE)):
        response_id = "resp_1" if number == 0 else "resp_2"
        await bench.publish_at(now_ms - (10 - 2 * number) * IDLE_MS, event, response_id=response_id)
    await bench.consumer().work(2)
    assert await sweep(bench) == ["a"]
    (text,) = await texts(bench.redis, bench.prefix)
    assert abs(text.finished_at.timestamp() * 1000 - now_ms) < IDLE_MS


async def test_what_another_group_has_read_is_still_unread(bench: Bench) -> None:
    """Otherwise a second program that reads the input makes texts be given up whose end was not yet read."""
    await test_what_is_unread_has_not_come_yet(bench)
    long_ago = await bench.now_ms() - 9 * IDLE_MS
    await bench.redis.xgroup_create(bench.names.deltas, "zz-another", id="$")
    await bench.publish_at(long_ago, delta(1, "c"), response_id="resp_2")
    await bench.consumer().work()
    await bench.publish_at(long_ago + SECOND, done("c"), response_id="resp_2")
    await bench.redis.xreadgroup("zz-another", "reader", {bench.names.deltas: ">"})
    assert await sweep(bench) == ["ab"]


async def test_what_a_worker_has_in_hand_has_not_come_yet(bench: Bench) -> None:
    """Otherwise a text is given up while the worker that has its end is still busy."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    await bench.publish_at(long_ago, delta(1, "a"))
    await bench.consumer().work()
    await bench.publish_at(long_ago + SECOND, delta(2, "b"), done("ab"))
    held = await bench.consumer("slow").read()
    assert await sweep(bench) == []
    await bench.consumer("slow").take(held)
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("ab", "verified")


async def test_a_text_is_silent_when_more_than_the_timeout_has_passed(bench: Bench) -> None:
    """Otherwise a text is given up in the moment in which its timeout ends, and something may still come."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    await bench.publish_at(long_ago, delta(1, "a"))
    await bench.consumer().work()
    await bench.publish_at(long_ago + IDLE_MS, KEEPALIVE, response_id="resp_2")
    await bench.consumer("slow").read()  # so that the stream's time stands still
    passed_ms = IDLE_MS - commit_plan.IDLE_GRAIN_MS
    assert not (await bench.storage.survey(passed_ms)).idle
    assert (await bench.storage.survey(passed_ms - 1)).idle


async def test_what_is_in_hand_does_not_make_time_of_what_is_unread(bench: Bench) -> None:
    """Otherwise one newer entry in somebody's hands gives up texts whose end lies unread before it."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    await bench.publish_at(long_ago, KEEPALIVE)
    held = await bench.consumer("slow").read()
    await bench.publish_at(long_ago + 2 * IDLE_MS, delta(1, "old"))
    await bench.consumer().work()
    await bench.publish_at(long_ago + 5 * IDLE_MS, KEEPALIVE)
    await bench.consumer().work()
    assert await sweep(bench) == []
    await bench.consumer("slow").take(held)
    assert await sweep(bench) == ["old"]


async def test_a_text_that_grows_is_not_silent(bench: Bench) -> None:
    """Otherwise a text that streams for longer than the timeout is given up in mid-stream."""
    now_ms, consumer = await bench.now_ms(), bench.consumer()
    await bench.publish_at(now_ms - 2 * IDLE_MS, delta(1, "a"))
    await consumer.work()
    await bench.publish_at(now_ms - SECOND, delta(2, "b"))
    await consumer.work()
    assert await sweep(bench) == []


async def test_a_text_is_not_silent_while_keepalives_come(bench: Bench) -> None:
    """Otherwise a model that thinks for long, and says that it does, is taken for one that is gone."""
    now_ms, consumer = await bench.now_ms(), bench.consumer()
    await bench.publish_at(now_ms - 2 * IDLE_MS, delta(1, "a"))
    await consumer.work()
    await bench.publish_at(now_ms - SECOND, KEEPALIVE)
    await consumer.work()
    assert await sweep(bench) == []


async def test_a_text_is_not_silent_while_endings_of_its_items_come(bench: Bench) -> None:
    """Otherwise a response whose items end one after the other is given up between two of them."""
    now_ms, consumer = await bench.now_ms(), bench.consumer()
    await bench.publish_at(now_ms - 2 * IDLE_MS, delta(1, "a"))
    await consumer.work()
    item = {"type": "message", "id": "item_7", "content": []}
    await bench.publish_at(
        now_ms - SECOND, {"type": "response.output_item.done", "output_index": 7, "item": item}
    )
    await consumer.work()
    assert await sweep(bench) == []


async def test_a_keepalive_opens_nothing(bench: Bench) -> None:
    """Otherwise every response without a text of ours counts as open until it is given up."""
    await bench.publish(KEEPALIVE, response_id="resp_9")
    await bench.consumer().work()
    assert await bench.member_scores("open") == {}


async def test_a_late_delta_opens_nothing(bench: Bench) -> None:
    """Otherwise a finished response counts as open again, and is given up a second time."""
    await bench.publish(delta(1, "a"), done("a"), COMPLETED)
    await bench.consumer().work()
    await bench.publish(delta(2, "late"))
    await bench.consumer().work()
    assert await bench.member_scores("open") == {}


@pytest.mark.parametrize("later", ["delta", "keepalive", "growth"])
async def test_the_latest_entry_counts_whoever_is_first(bench: Bench, later: str) -> None:
    """Otherwise a worker that is slow with an older entry makes a text look silent that is not."""
    now_ms = await bench.now_ms()
    slow, fast = bench.consumer("slow"), bench.consumer("fast")
    first = now_ms - 3 * IDLE_MS
    if later == "growth":  # both know the part, and say no more than that it grows
        for consumer in (slow, fast):
            await bench.publish_at(first, delta(1, "a"))
            await consumer.work()
    else:
        await bench.publish_at(first, delta(1, "a"))
        await fast.work()
    old, new = (KEEPALIVE, KEEPALIVE) if later == "keepalive" else (delta(2, "b"), delta(3, "c"))
    await bench.publish_at(now_ms - 2 * IDLE_MS, old)
    held = await slow.read()
    await bench.publish_at(now_ms, new)
    await fast.work()
    before = await bench.member_scores("open")
    await slow.take(held)
    assert await bench.member_scores("open") == before
    assert min(before.values()) >= now_ms


async def test_beyond_the_limit_those_silent_the_longest_are_given_up(redis: Redis, prefix: str) -> None:
    """Otherwise the newest texts are given up, or one too many, or none."""
    bench = Bench(redis, prefix, max_open_responses=2)
    now_ms = await bench.now_ms()
    for number in range(4):
        await bench.publish_at(now_ms - (9 - number) * SECOND, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    await bench.consumer("sweeper").worker.sweep()
    given_up = await texts(redis, prefix)
    assert [(text.response_id, text.reason) for text in given_up] == [
        ("resp_0", "open_limit"),
        ("resp_1", "open_limit"),
    ]
    await bench.consumer("sweeper").worker.sweep()
    assert len(await texts(redis, prefix)) == 2


async def test_many_silent_texts_are_given_up_in_one_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a server that restarts gives up one text a second, and holds the others meanwhile."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    monkeypatch.setattr(commit_plan, "AT_MOST", 3)
    for number in range(4):
        await bench.publish_at(long_ago, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    survey = await bench.storage.survey(IDLE_MS)
    assert len(survey.idle) == 3


async def test_a_sweep_gives_up_all_that_is_silent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise those who open responses faster than one look a second ends them fill the server."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    monkeypatch.setattr(commit_plan, "AT_MOST", 3)
    for number in range(7):
        await bench.publish_at(long_ago, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    assert await sweep(bench) == ["a"] * 7


async def test_a_sweep_gives_up_what_has_no_text(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise some hundred silent responses without a text hide all others from a sweep."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    monkeypatch.setattr(commit_plan, "AT_MOST", 3)
    for number in range(7):
        created = {"type": "response.created", "response": {"model": "m"}}
        await bench.publish_at(long_ago, created, response_id=f"resp_{number}")
    await bench.publish_at(long_ago + SECOND, delta(1, "a"), response_id="said")
    await bench.consumer().work()
    assert await sweep(bench) == ["a"]
    assert await bench.member_scores("open") == {}


async def test_a_batch_does_not_wait_until_all_that_is_silent_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a worker reads nothing for minutes while thousands of responses are given up."""
    now_ms = await bench.now_ms()
    monkeypatch.setattr(commit_plan, "AT_MOST", 3)
    for number in range(9):
        await bench.publish_at(now_ms - 10 * IDLE_MS, delta(1, "a"), response_id=f"silent_{number}")
    await bench.consumer().work()
    for number in range(3):
        await bench.publish_at(now_ms, delta(1, "b"), done("b"), response_id=f"closed_{number}")
    await bench.consumer().work()
    assert sorted(text.text for text in await texts(bench.redis, bench.prefix)) == [*"aaa", *"bbb"]
    assert sorted(await sweep(bench)) == [*"a" * 9, *"bbb"]


async def test_a_sweep_gives_up_all_beyond_the_limit(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the limit of open responses is none for those who open them fast."""
    bench = Bench(redis, prefix, max_open_responses=2)
    now_ms = await bench.now_ms()
    monkeypatch.setattr(commit_plan, "AT_MOST", 3)
    for number in range(9):
        await bench.publish_at(now_ms - (9 - number) * SECOND, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    assert await sweep(bench) == ["a"] * 7
    assert len(await bench.member_scores("open")) == 2


async def test_a_batch_that_opens_too_many_gives_up_as_many(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise fifty thousand responses are open between two sweeps, at a limit of a thousand."""
    bench = Bench(redis, prefix, max_open_responses=4)
    monkeypatch.setattr(commit_plan, "AT_MOST", 3)
    consumer = bench.consumer()
    for number in range(15):
        await bench.publish(delta(1, "a"), response_id=f"resp_{number}")
        if number % 3 == 2:
            await consumer.work()
            assert len(await bench.member_scores("open")) <= 4
    assert len(await texts(bench.redis, bench.prefix)) == 11


async def test_a_batch_gives_up_no_more_than_it_opens(redis: Redis, prefix: str) -> None:
    """Otherwise one honest response that begins waits until a thousand hostile ones are given up."""
    bench = Bench(redis, prefix, max_open_responses=100)
    for number in range(8):
        await bench.publish(delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    few = Bench(redis, prefix, max_open_responses=2)
    await few.publish(delta(1, "a"), response_id="resp_8")
    await few.consumer().work()
    assert len(await few.member_scores("open")) == 8
    assert len(await texts(redis, prefix)) == 1


async def test_giving_up_does_not_read_what_waits(redis: Redis, prefix: str) -> None:
    """Otherwise each batch reads five hundred responses in doubt, which nobody can settle yet."""
    bench = Bench(redis, prefix, max_open_responses=1)
    await bench.publish(KEEPALIVE)
    await bench.consumer("stuck").read()
    consumer = bench.consumer()
    await bench.publish(delta(1, "a"), done("another"), response_id="in doubt")
    await consumer.work()
    assert await bench.member_scores("waiting")
    survey = await bench.storage.surplus(0)
    assert (survey.ready, dict(survey.idle)) == ([], {})
    assert [key.value for key in survey.surplus] == ["in doubt"]


async def test_looks_begin_at_different_ones_of_too_many(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all workers load the same responses, and all but one for nothing."""
    bench = Bench(redis, prefix)
    for number in range(10):
        await bench.publish_at(1 + number, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    monkeypatch.setattr(commit_plan, "AT_MOST", 3)
    named: set[str] = set()
    while len(named) < 8:
        some = (await bench.storage.surplus(2)).surplus
        assert len(some) == 3
        named |= {key.value for key in some}
    assert named == {f"resp_{number}" for number in range(8)}, "the two latest may stay open"


async def test_a_look_does_not_copy_the_largest_entries(bench: Bench) -> None:
    """Otherwise one large entry at the head of the input holds up the server with each look, for a day."""
    await bench.publish({"type": "keepalive", "junk": "j" * 1_000_000}, KEEPALIVE)
    await bench.consumer().work()
    await bench.redis.config_resetstat()
    await bench.storage.survey(IDLE_MS)
    called = await bench.redis.info("commandstats")
    assert "cmdstat_evalsha" in called
    assert "cmdstat_xinfo|stream" not in called
