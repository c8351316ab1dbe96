"""Texts: what deltaloom makes of the events that a model streams."""

import json

from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis

from deltaloom import AssembledText
from tests.fundamentals.loom import Loom, answer, reasoning, refusal
from tests.waiting import wait_until

PART = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
EVENTS = [
    {"type": "response.refusal.delta", "sequence_number": 1, "delta": "I'm sorry,", **PART},
    {"type": "response.refusal.delta", "sequence_number": 2, "delta": " but no.", **PART},
    {"type": "response.refusal.done", "sequence_number": 3, "refusal": "I'm sorry, but no.", **PART},
]
"""A refusal, as the OpenAI Responses API streams it."""


async def test_publish_in_three_lines_and_subscribe_in_three_lines(loom: Loom, redis: Redis) -> None:
    """A producer adds events with any Redis client, and a FastStream subscriber gets the finished text."""
    broker = RedisBroker(loom.redis_url)
    received = []

    @broker.subscriber(stream=StreamSub(loom.names.assembled, last_id="0"))
    async def on_text(text: AssembledText) -> None:
        received.append(text)

    async with loom.worker(), broker:
        await broker.start()
        for event in EVENTS:
            await redis.xadd(loom.names.deltas, {"event": json.dumps(event), "response_id": "resp_1"})
        (text,) = await wait_until(lambda: received, message="the text arrives")

    assert text.text == "I'm sorry, but no."
    assert (text.response_id, text.kind, text.status) == ("resp_1", "refusal", "completed")
    assert text.integrity == "verified"  # the joined deltas are exactly the text in the last event


async def test_order_and_repeats_do_not_matter(loom: Loom) -> None:
    """Events may arrive in any order and more than once. The text is the same, and comes out once."""
    one, two, three, done = refusal("I'm", " sorry,", " but no.")
    async with loom.worker():
        await loom.publish(three, one, two, one, done)
        await loom.all_is_processed()
        await loom.publish(one, two, three, done)
        await loom.all_is_processed()

    (text,) = await loom.texts()
    assert text.text == "I'm sorry, but no."
    assert text.integrity == "verified"
    assert text.duplicate_count == 1


async def test_reasoning_is_assembled_beside_the_answer(loom: Loom) -> None:
    """The reasoning of a response becomes a text. Its answer becomes another one only if you enable that."""
    they, rhyme, thought = reasoning("They want", " a rhyme.")
    roses, red, answered = answer("Roses", " are red.")
    events = (they, roses, rhyme, red, thought, answered)

    async with loom.worker():
        await loom.publish(*events, response_id="resp_1")
        await loom.all_is_processed()
    assert [(text.kind, text.text) for text in await loom.texts()] == [("reasoning", "They want a rhyme.")]

    async with loom.worker(handlers="output_text"):
        await loom.publish(*events, response_id="resp_2")
        await loom.all_is_processed()
    _, text = await loom.texts()
    assert (text.response_id, text.kind, text.text) == ("resp_2", "output_text", "Roses are red.")


async def test_a_bad_event_costs_only_itself(loom: Loom) -> None:
    """A broken event becomes a dead letter. The text is whole, and says that a delta was missing."""
    one, _, three, done = refusal("I'm", " sorry,", " but no.")
    async with loom.worker():
        await loom.publish(one, "{this is not JSON", three, done)
        await loom.all_is_processed()

    (letter,) = await loom.dead_letters()
    assert letter.reason == "malformed_json"
    assert "{this is not JSON" in letter.entry
    (text,) = await loom.texts()
    assert text.text == "I'm sorry, but no."  # from the last event, which has the whole text
    assert text.integrity == "repaired"  # the joined deltas are another text


async def test_a_response_that_is_cut_off_is_given_up(loom: Loom) -> None:
    """A text without an end comes out after the idle timeout, as far as it came, marked as abandoned."""
    one, two, *_never_sent = refusal("I'm", " sorry,", " but no.")
    async with loom.worker(idle_timeout=0.1, sweep_interval=0.1):
        await loom.publish([one, two])  # several events may share an entry
        (text,) = await wait_until(loom.texts)

    assert text.text == "I'm sorry,"
    assert (text.status, text.reason) == ("abandoned", "idle_timeout")
    assert text.integrity == "unverified"  # no event had the whole text
