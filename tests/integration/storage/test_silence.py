"""Rules for silent responses: a response with entries on their way is never abandoned.

The entries of these tests have ids in the past, so that no test has to wait.
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
    """Return a test bench with an idle timeout of a minute."""
    return Bench(redis, prefix, idle_timeout=IDLE_MS / 1000)


async def sweep(bench: Bench) -> list[str]:
    """Sweep as another worker, and return the texts that have come out so far."""
    await bench.consumer("sweeper").worker.sweep()
    return [text.text for text in await texts(bench.redis, bench.prefix)]


async def test_a_text_is_given_up_once_nothing_came_for_the_timeout(bench: Bench) -> None:
    """Otherwise a cut connection would leave its text open forever, or it would be abandoned too early."""
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
    """Otherwise the first worker after a long outage would abandon texts with ends that are still unread."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    await bench.publish_at(long_ago, delta(1, "a"))
    await bench.consumer().work()
    await bench.publish_at(long_ago + SECOND, delta(2, "b"), done("ab"))
    assert await sweep(bench) == []
    await bench.consumer().work()
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("ab", "verified")


async def test_a_text_that_is_given_up_in_the_streams_time_says_when_that_was(bench: Bench) -> None:
    """Otherwise texts would seem to have been abandoned at a time when no worker ran."""
    now_ms = await bench.now_ms()
    for number, event in enumerate((delta(1, "a"), KEEPALIVE, KEEPALIVE)):
        response_id = "resp_1" if number == 0 else "resp_2"
        await bench.publish_at(now_ms - (10 - 2 * number) * IDLE_MS, event, response_id=response_id)
    await bench.consumer().work(2)
    assert await sweep(bench) == ["a"]
    (text,) = await texts(bench.redis, bench.prefix)
    assert abs(text.finished_at.timestamp() * 1000 - now_ms) < IDLE_MS


async def test_what_another_group_has_read_is_still_unread(bench: Bench) -> None:
    """Otherwise another program's group on the input would make texts be abandoned before their end."""
    await test_what_is_unread_has_not_come_yet(bench)
    long_ago = await bench.now_ms() - 9 * IDLE_MS
    await bench.redis.xgroup_create(bench.names.deltas, "zz-another", id="$")
    await bench.publish_at(long_ago, delta(1, "c"), response_id="resp_2")
    await bench.consumer().work()
    await bench.publish_at(long_ago + SECOND, done("c"), response_id="resp_2")
    await bench.redis.xreadgroup("zz-another", "reader", {bench.names.deltas: ">"})
    assert await sweep(bench) == ["ab"]


async def test_what_a_worker_has_in_hand_has_not_come_yet(bench: Bench) -> None:
    """Otherwise a text would be abandoned while a busy worker holds its end."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    await bench.publish_at(long_ago, delta(1, "a"))
    await bench.consumer().work()
    await bench.publish_at(long_ago + SECOND, delta(2, "b"), done("ab"))
    held = await bench.consumer("slow").read()
    assert await sweep(bench) == []
    await bench.consumer("slow").process(held)
    (text,) = await texts(bench.redis, bench.prefix)
    assert (text.text, text.integrity) == ("ab", "verified")


async def test_a_text_is_silent_when_more_than_the_timeout_has_passed(bench: Bench) -> None:
    """Otherwise a text would be abandoned at the exact end of its timeout, when an event may still come."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    await bench.publish_at(long_ago, delta(1, "a"))
    await bench.consumer().work()
    await bench.publish_at(long_ago + IDLE_MS, KEEPALIVE, response_id="resp_2")
    await bench.consumer("slow").read()  # the pending entry keeps the stream's time constant
    passed_ms = IDLE_MS - commit_plan.IDLE_GRAIN_MS
    assert not (await bench.storage.survey(passed_ms)).idle
    assert (await bench.storage.survey(passed_ms - 1)).idle


async def test_pending_entries_do_not_advance_time_past_unread_ones(bench: Bench) -> None:
    """Otherwise a newer pending entry would cause texts with unread ends to be abandoned."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    await bench.publish_at(long_ago, KEEPALIVE)
    held = await bench.consumer("slow").read()
    await bench.publish_at(long_ago + 2 * IDLE_MS, delta(1, "old"))
    await bench.consumer().work()
    await bench.publish_at(long_ago + 5 * IDLE_MS, KEEPALIVE)
    await bench.consumer().work()
    assert await sweep(bench) == []
    await bench.consumer("slow").process(held)
    assert await sweep(bench) == ["old"]


async def test_a_text_that_grows_is_not_silent(bench: Bench) -> None:
    """Otherwise a text that streams for longer than the timeout would be abandoned in mid-stream."""
    now_ms, consumer = await bench.now_ms(), bench.consumer()
    await bench.publish_at(now_ms - 2 * IDLE_MS, delta(1, "a"))
    await consumer.work()
    await bench.publish_at(now_ms - SECOND, delta(2, "b"))
    await consumer.work()
    assert await sweep(bench) == []


async def test_a_text_is_not_silent_while_keepalives_come(bench: Bench) -> None:
    """Otherwise a response with keepalives would be abandoned."""
    now_ms, consumer = await bench.now_ms(), bench.consumer()
    await bench.publish_at(now_ms - 2 * IDLE_MS, delta(1, "a"))
    await consumer.work()
    await bench.publish_at(now_ms - SECOND, KEEPALIVE)
    await consumer.work()
    assert await sweep(bench) == []


async def test_a_text_is_not_silent_while_endings_of_its_items_come(bench: Bench) -> None:
    """Otherwise a response would be abandoned between the ends of two of its items."""
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
    """Otherwise each response without texts would be open until the idle timeout."""
    await bench.publish(KEEPALIVE, response_id="resp_9")
    await bench.consumer().work()
    assert await bench.member_scores("open") == {}


async def test_a_late_delta_opens_nothing(bench: Bench) -> None:
    """Otherwise a finished response would be open again, and be abandoned later."""
    await bench.publish(delta(1, "a"), done("a"), COMPLETED)
    await bench.consumer().work()
    await bench.publish(delta(2, "late"))
    await bench.consumer().work()
    assert await bench.member_scores("open") == {}


@pytest.mark.parametrize("later", ["delta", "keepalive", "growth"])
async def test_the_latest_entry_counts_whoever_is_first(bench: Bench, later: str) -> None:
    """Otherwise a slow worker with an older entry would make a response look silent."""
    now_ms = await bench.now_ms()
    slow, fast = bench.consumer("slow"), bench.consumer("fast")
    first = now_ms - 3 * IDLE_MS
    if later == "growth":  # both workers know the part, and send only its new deltas
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
    await slow.process(held)
    assert await bench.member_scores("open") == before
    assert min(before.values()) >= now_ms


async def test_beyond_the_limit_those_silent_the_longest_are_given_up(redis: Redis, prefix: str) -> None:
    """Otherwise the newest texts would be abandoned, or one too many, or none."""
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


async def test_many_silent_texts_are_given_up_in_one_survey(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one text per second would be abandoned after a restart of the server, while others wait."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 3)
    for number in range(4):
        await bench.publish_at(long_ago, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    survey = await bench.storage.survey(IDLE_MS)
    assert len(survey.idle) == 3


async def test_a_sweep_gives_up_all_that_is_silent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a producer could open responses faster than sweeps abandon them."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 3)
    for number in range(7):
        await bench.publish_at(long_ago, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    assert await sweep(bench) == ["a"] * 7


async def test_a_sweep_gives_up_what_has_no_text(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise hundreds of silent responses without a text would hide all others from a sweep."""
    long_ago = await bench.now_ms() - 10 * IDLE_MS
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 3)
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
    """Otherwise a worker would read nothing for minutes while it abandons thousands of responses."""
    now_ms = await bench.now_ms()
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 3)
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
    """Otherwise the limit of open responses would not hold for fast producers."""
    bench = Bench(redis, prefix, max_open_responses=2)
    now_ms = await bench.now_ms()
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 3)
    for number in range(9):
        await bench.publish_at(now_ms - (9 - number) * SECOND, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    assert await sweep(bench) == ["a"] * 7
    assert len(await bench.member_scores("open")) == 2


async def test_a_batch_that_opens_too_many_gives_up_as_many(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise fifty thousand responses could be open between two sweeps, with a limit of a thousand."""
    bench = Bench(redis, prefix, max_open_responses=4)
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 3)
    consumer = bench.consumer()
    for number in range(15):
        await bench.publish(delta(1, "a"), response_id=f"resp_{number}")
        if number % 3 == 2:
            await consumer.work()
            assert len(await bench.member_scores("open")) <= 4
    assert len(await texts(bench.redis, bench.prefix)) == 11


async def test_a_batch_gives_up_no_more_than_it_opens(redis: Redis, prefix: str) -> None:
    """Otherwise one honest response would wait while a thousand hostile ones are abandoned."""
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
    """Otherwise each batch would load hundreds of responses that cannot be settled yet."""
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


async def test_surveys_begin_at_different_ones_of_too_many(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all workers would load the same responses, and all but one in vain."""
    bench = Bench(redis, prefix)
    for number in range(10):
        await bench.publish_at(1 + number, delta(1, "a"), response_id=f"resp_{number}")
    await bench.consumer().work()
    monkeypatch.setattr(commit_plan, "MAX_RESPONSES", 3)
    named: set[str] = set()
    while len(named) < 8:
        some = (await bench.storage.surplus(2)).surplus
        assert len(some) == 3
        named |= {key.value for key in some}
    assert named == {f"resp_{number}" for number in range(8)}, "the two latest may stay open"


async def test_a_survey_does_not_copy_the_largest_entries(bench: Bench) -> None:
    """Otherwise one large entry at the head of the input would block the server at each survey."""
    await bench.publish({"type": "keepalive", "junk": "j" * 1_000_000}, KEEPALIVE)
    await bench.consumer().work()
    await bench.redis.config_resetstat()
    await bench.storage.survey(IDLE_MS)
    called = await bench.redis.info("commandstats")
    assert "cmdstat_evalsha" in called
    assert "cmdstat_xinfo|stream" not in called
