"""Tests of one worker on a real server: the whole path of an event, in every shape of the contract."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from faststream.redis import RedisBroker, StreamSub

from deltaloom import AssembledText, ModerationAlert, StreamNames
from tests.streams import add
from tests.waiting import wait_until
from tests.workers import (
    alerts,
    counts,
    dead_letters,
    running_workers,
    texts,
    wait_until_settled,
    workers_in_process,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

WORDS = ["I'm", " sorry,", " but", " no."]
REFUSAL = "".join(WORDS)


def part(**more: Any) -> dict[str, Any]:
    """Return the fields that all events of the test's part have, updated with `more`."""
    return {"item_id": "msg_1", "output_index": 0, "content_index": 0, **more}


def refusal() -> Iterator[dict[str, Any]]:
    """Yield the events of a refused response, as the API streams them."""
    yield {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "model": "gpt-x"}}
    yield {"type": "response.in_progress", "sequence_number": 1, "response": {"id": "resp_1"}}
    for number, word in enumerate(WORDS, 2):
        yield part(type="response.refusal.delta", delta=word, sequence_number=number)
    yield part(type="response.refusal.done", refusal=REFUSAL, sequence_number=6)
    copy = {"type": "refusal", "refusal": REFUSAL}
    yield part(type="response.content_part.done", part=copy, sequence_number=7)
    item = {"id": "msg_1", "type": "message", "content": [copy]}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item, "sequence_number": 8}
    yield {
        "type": "response.completed",
        "sequence_number": 9,
        "response": {"id": "resp_1", "output": [item]},
    }


async def publish(redis: Redis, prefix: str, *events: dict[str, Any] | list[Any], **context: str) -> None:
    """Publish each event, or each array of events, as an entry."""
    for event in events:
        await add(redis, StreamNames(prefix).deltas, {"event": json.dumps(event), **context})


async def test_refusal_raises_two_alerts_and_gives_one_text(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A refusal raises two alerts, and its text comes out on the stream and in its item."""
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, *refusal(), response_id="resp_1", tenant="acme")
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert (text.text, text.kind, text.status, text.integrity) == (
        REFUSAL,
        "refusal",
        "completed",
        "verified",
    )
    assert (text.response_id, text.item_id, text.tenant, text.model) == ("resp_1", "msg_1", "acme", "gpt-x")
    assert (text.delta_count, text.first_sequence_number, text.last_sequence_number) == (4, 2, 5)
    opened, finished = await alerts(redis, prefix)
    assert (opened.type, finished.type) == ("deltaloom.refusal.opened", "deltaloom.refusal.finished")
    assert REFUSAL.startswith(opened.text)
    assert (finished.text, finished.status, opened.tenant) == (REFUSAL, "completed", "acme")
    item = await redis.hgetall(StreamNames(prefix).item("resp_1", 0))
    assert AssembledText.model_validate_json(item[b"refusal:0"]) == text
    assert await counts(redis, prefix) == {"type:response.in_progress": 1}


async def test_opened_alert_comes_with_the_first_delta(redis: Redis, redis_url: str, prefix: str) -> None:
    """The alert `opened` is raised with the first delta, long before the refusal ends."""
    async with workers_in_process(redis_url, prefix):
        created, _, first, *_ = refusal()
        await publish(redis, prefix, created, first, response_id="resp_1")
        (opened,) = await wait_until(lambda: alerts(redis, prefix), message="the alert is raised")
        assert (opened.type, opened.text, opened.model) == ("deltaloom.refusal.opened", WORDS[0], "gpt-x")
        assert await texts(redis, prefix) == []


async def test_events_written_by_hand(redis: Redis, redis_url: str, prefix: str) -> None:
    """Flat fields, as `redis-cli XADD` writes them, work like events in JSON."""
    flat = {"item_id": "msg_1", "output_index": "0", "content_index": "0"}
    async with workers_in_process(redis_url, prefix):
        deltas = StreamNames(prefix).deltas
        for number, word in enumerate(WORDS, 1):
            event = {"type": "response.refusal.delta", "delta": word, "sequence_number": str(number)}
            await add(redis, deltas, {**event, **flat})
        await add(redis, deltas, {"type": "response.refusal.done", "refusal": REFUSAL, **flat})
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert (text.text, text.integrity, text.item_id, text.response_id) == (REFUSAL, "verified", "msg_1", None)
    assert [alert.type for alert in await alerts(redis, prefix)] == [
        "deltaloom.refusal.opened",
        "deltaloom.refusal.finished",
    ]


@pytest.mark.parametrize("coalesced", [False, True], ids=["one an entry", "an array"])
async def test_published_and_subscribed_with_faststream(
    redis: Redis, redis_url: str, prefix: str, *, coalesced: bool
) -> None:
    """Producers and subscribers need only FastStream and the library's models."""
    names = StreamNames(prefix)
    got: list[AssembledText | ModerationAlert] = []
    broker = RedisBroker(redis_url)

    # `last_id="0"`: FastStream's reads from a stream's end (`$`) can miss entries between two reads.
    @broker.subscriber(stream=StreamSub(names.assembled, last_id="0"))
    async def on_text(text: AssembledText) -> None:
        got.append(text)

    @broker.subscriber(stream=StreamSub(names.alerts, last_id="0"))
    async def on_alert(alert: ModerationAlert) -> None:
        got.append(alert)

    async with workers_in_process(redis_url, prefix), broker:
        await broker.start()
        headers = {"response_id": "resp_1", "tenant": "acme"}
        events: list[Any] = [list(refusal())] if coalesced else list(refusal())
        for event in events:
            await broker.publish(event, stream=names.deltas, headers=headers)
        await wait_until(lambda: len(got) == 3, message="two alerts and a text arrive")
    assert {message.type for message in got} == {
        "deltaloom.refusal.opened",
        "deltaloom.refusal.finished",
        "deltaloom.text.assembled",
    }
    assert {(message.response_id, message.tenant) for message in got} == {("resp_1", "acme")}
    assert await dead_letters(redis, prefix) == []


async def test_what_was_published_before_the_first_worker_is_read(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A new consumer group begins at the stream's start, and so reads what came before the first worker."""
    await publish(redis, prefix, *refusal(), response_id="resp_1")
    async with workers_in_process(redis_url, prefix):
        await wait_until_settled(redis, prefix)
    assert [text.text for text in await texts(redis, prefix)] == [REFUSAL]


async def test_bad_entries_are_dead_letters_and_their_neighbours_go_on(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """A bad entry or event becomes a dead letter, and the rest of its batch is processed."""
    created, _, one, two, three, four, done, *_ = refusal()
    bad = {"type": "response.refusal.delta", "delta": 5, "item_id": "msg_1", "output_index": 0}
    deltas = StreamNames(prefix).deltas
    await redis.xadd(deltas, {"event": "{broken", "response_id": "resp_1"})
    array = json.dumps([created, one, bad, "no event", two])
    await redis.xadd(deltas, {"event": array, "response_id": "resp_1"})
    await redis.xadd(deltas, {"event": b"\xff\xfe", "response_id": "resp_1"})
    await redis.xadd(deltas, {"nothing": "of ours"})
    await publish(redis, prefix, {**three, "item_id": None, "output_index": "x"}, response_id="resp_1")
    await publish(redis, prefix, three, four, done, response_id="resp_1")
    async with workers_in_process(redis_url, prefix):
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert (text.text, text.integrity) == (REFUSAL, "verified")
    letters = await dead_letters(redis, prefix)
    assert [letter.reason for letter in letters] == [
        "malformed_json",
        "invalid_event",
        "invalid_event",
        "malformed_json",
        "invalid_event",
        "invalid_event",
    ]
    assert json.loads(json.loads(letters[1].entry)["event"]) == bad
    assert letters[5].error == "response.refusal.delta: output_index: Input should be a valid integer"


async def test_too_large_an_event_and_too_large_a_part(redis: Redis, redis_url: str, prefix: str) -> None:
    """Events and parts beyond their limits become dead letters. Otherwise one producer could fill Redis."""
    created, _, one, two, *_ = refusal()
    async with workers_in_process(redis_url, prefix, max_event_bytes=2048, max_part_bytes=4096):
        await publish(redis, prefix, {**one, "delta": "x" * 3000}, response_id="large_event")
        for number in range(10):
            event = {**one, "delta": f"{number}" + "x" * 1500, "sequence_number": number}
            await publish(redis, prefix, event, response_id="large_part")
        end = part(type="response.refusal.done", refusal="y" * 1900)
        await publish(redis, prefix, end, response_id="large_part")
        await publish(redis, prefix, created, one, two, response_id="resp_1")
        await wait_until_settled(redis, prefix)
    letters = await dead_letters(redis, prefix)
    assert {letter.reason for letter in letters} == {"oversized"}
    assert letters[0].error == "the event has 3128 bytes; at most 2048"
    assert "the refusal of this response would exceed 4096 bytes or 500000 deltas" in letters[1].error
    assert len(letters) > 5
    (text,) = await texts(redis, prefix)
    assert (text.text, text.integrity) == ("y" * 1900, "repaired")


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ({"type": "response.completed", "response": {"output": []}}, "completed", None),
        (
            {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}},
            "incomplete",
            "content_filter",
        ),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}},
            "failed",
            "server_error",
        ),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, "failed", "rate_limit_exceeded"),
        ({"type": "error", "error": {"type": "overloaded", "message": "m"}}, "failed", "overloaded"),
    ],
    ids=["completed", "incomplete", "failed", "flat error", "nested error"],
)
async def test_the_end_of_a_response_closes_what_is_open(
    redis: Redis, redis_url: str, prefix: str, end: dict[str, Any], status: str, reason: str | None
) -> None:
    """The end of a response finishes its open texts with the status of that end."""
    created, _, *words = list(refusal())[:6]
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, created, *words, end, response_id="resp_1")
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert (text.text, text.status, text.reason, text.integrity) == (REFUSAL, status, reason, "unverified")


async def test_a_response_that_is_cut_off_is_given_up(redis: Redis, redis_url: str, prefix: str) -> None:
    """A text without an end is abandoned after the idle timeout."""
    created, _, *words = list(refusal())[:6]
    async with workers_in_process(redis_url, prefix, idle_timeout=0.5, sweep_interval=0.1):
        # All in one entry, so that a slow test process causes no idle time between events.
        await publish(redis, prefix, [created, *words], response_id="resp_1")
        (text,) = await wait_until(lambda: texts(redis, prefix), message="the text is given up")
    assert (text.text, text.status, text.reason) == (REFUSAL, "abandoned", "idle_timeout")
    assert [alert.status for alert in await alerts(redis, prefix)] == [None, "abandoned"]


async def test_half_an_emoji_in_each_of_two_deltas(redis: Redis, redis_url: str, prefix: str) -> None:
    """A surrogate pair that is split between two deltas survives each JSON and UTF-8 step."""
    _, _, one, two, *_ = refusal()
    done = part(type="response.refusal.done", refusal="no \U0001f600")
    async with workers_in_process(redis_url, prefix):
        halves = [{**one, "delta": "no \ud83d"}, {**two, "delta": "\ude00"}]
        await publish(redis, prefix, *halves, done, response_id="resp_1")
        await wait_until_settled(redis, prefix)
    (text,) = await texts(redis, prefix)
    assert (text.text, text.integrity, text.delta_count) == ("no \U0001f600", "verified", 2)
    assert await dead_letters(redis, prefix) == []


async def test_large_entries_among_others(redis: Redis, redis_url: str, prefix: str) -> None:
    """Large entries, which are processed after the others of their read, are neither lost nor fail."""
    async with running_workers(redis_url, prefix, claim_time=60) as workers:
        for number in range(20):
            name = f"resp_{number}"
            large = [part(type="response.refusal.delta", delta="x" * 400) for _ in range(60)]
            await publish(redis, prefix, *large[:2], large, response_id=name)
            await publish(redis, prefix, part(type="response.refusal.done", refusal="No."), response_id=name)
        await wait_until_settled(redis, prefix, 20)
        assert "failed" not in workers[0].log.read_text()
    found = await texts(redis, prefix)
    assert {text.response_id: text.delta_count for text in found} == {f"resp_{n}": 62 for n in range(20)}
    assert not await redis.exists(f"{prefix}:owners")


async def test_the_answer_is_assembled_only_if_it_is_enabled(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Answers are assembled only if `DELTALOOM_HANDLERS` contains `output_text`."""
    answer = [
        part(type="response.output_text.delta", delta="Hi", sequence_number=1),
        part(type="response.output_text.done", text="Hi", sequence_number=2),
    ]
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, *answer, response_id="off")
        await wait_until_settled(redis, prefix)
    assert await texts(redis, prefix) == []
    async with workers_in_process(redis_url, prefix, handlers="output_text,lifecycle"):
        await publish(redis, prefix, *answer, response_id="on")
        await wait_until_settled(redis, prefix)
    assert [(text.kind, text.text) for text in await texts(redis, prefix)] == [("output_text", "Hi")]


async def test_late_and_repeated_events_change_nothing(redis: Redis, redis_url: str, prefix: str) -> None:
    """Events that are repeated after the end only increase the count `late`."""
    async with workers_in_process(redis_url, prefix):
        await publish(redis, prefix, *refusal(), response_id="resp_1")
        await wait_until_settled(redis, prefix)
        await publish(redis, prefix, *refusal(), response_id="resp_1")
        await wait_until_settled(redis, prefix)
    assert len(await texts(redis, prefix)) == 1
    assert len(await alerts(redis, prefix)) == 2
    assert (await counts(redis, prefix))["late"] == len(WORDS)


async def test_no_text_is_logged_and_every_line_says_where_it_belongs(
    redis: Redis, redis_url: str, prefix: str
) -> None:
    """Logs contain no text by default, and each line has the ids needed to find its entry."""
    async with running_workers(redis_url, prefix, log_level="debug") as (worker,):
        await publish(redis, prefix, *refusal(), response_id="resp_1")
        await redis.xadd(StreamNames(prefix).deltas, {"event": '{"sorry": "but'})
        await wait_until_settled(redis, prefix)
        for event in ("text finished", "dead letter"):
            await wait_until(partial(worker.has_logged, event), message=f"{event} is logged")
        assert "sorry" not in worker.log.read_text()
        assert all(word.strip() not in worker.log.read_text() for word in (WORDS[0], REFUSAL))
        lines = {line["event"]: line for line in worker.lines()}
    assert lines["batch committed"].keys() >= {"stream", "first_entry", "last_entry", "entries"}
    assert lines["refusal opened"]["response"] == "resp_1"
    assert lines["refusal opened"]["item"] == "msg_1"
    assert lines["text finished"].keys() >= {
        "stream",
        "first_entry",
        "last_entry",
        "response",
        "item",
        "kind",
        "status",
        "integrity",
    }
    assert lines["dead letter"].keys() >= {"entry", "reason", "error", "stream"}


async def test_a_storm_does_not_fill_the_log(redis: Redis, redis_url: str, prefix: str) -> None:
    """Write a few lines of a storm, and count the others until the worker has stopped."""
    async with running_workers(redis_url, prefix, log_burst=5) as (worker,):
        for n in range(40):
            await publish(redis, prefix, *refusal(), response_id=f"resp_{n}")
        await redis.xadd(StreamNames(prefix).deltas, {"event": "{"})
        await wait_until_settled(redis, prefix)
        await worker.stop()
        found = worker.lines()
    written = Counter(line["event"] for line in found)
    left_out = Counter[str]()
    for line in found:
        if line["event"] == "log lines left out":
            left_out[line["of_event"]] += line["lines"]
    windows = 1 + max(Counter(line["of_event"] for line in found if "of_event" in line).values())
    assert written["dead letter"] == 1, "another event has its own budget"
    for event in ("refusal opened", "text finished"):
        assert written[event] <= 5 * windows
        assert written[event] + left_out[event] == 40


async def test_texts_are_logged_if_that_is_enabled(redis: Redis, redis_url: str, prefix: str) -> None:
    """The log contains the texts with `DELTALOOM_LOG_TEXT=true`."""
    async with running_workers(redis_url, prefix, log_text="true") as (worker,):
        await publish(redis, prefix, *refusal(), response_id="resp_1")
        await wait_until(lambda: worker.has_logged("text finished"), message="the text is logged")
        (line,) = [line for line in worker.lines() if line["event"] == "text finished"]
    assert line["text"] == REFUSAL
