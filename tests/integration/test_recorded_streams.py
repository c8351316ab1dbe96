"""Test translators and a worker together: texts and alerts are those that the independent reader finds.

Each recording in the folders that RECORDED_DIALECTS and RECORDINGS name is published twice, whole and cut off
at a random byte; without these variables, the demo's streams are. One worker reads them, mixed at random.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from deltaloom import StreamNames
from deltaloom.dialects import Translator
from deltaloom.reasons import REFUSED, STOPPED, reason_class
from handlers import BUILT_IN
from tests.client.dialects.fuzz import pieces_of
from tests.client.dialects.test_oracle import cut_at_random, expected_of, recorded_or_own
from tests.workers import alerts, dead_letters, running_workers, texts, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from redis.asyncio import Redis

    from deltaloom import AssembledText
    from deltaloom.dialects import Event
    from tests.client.dialects.oracle import Read

PIPELINE = 500
_ALERTS = {"incomplete": "deltaloom.response.filtered", "failed": "deltaloom.response.blocked"}


class Published(NamedTuple):
    """A stream, as its producer publishes it, and what the independent reader finds in it."""

    name: str
    events: list[Event]
    context: dict[str, str]
    expected: Read
    is_cut: bool

    def texts(self, pairs: list[tuple[str, str]]) -> Counter[tuple[Any, ...]]:
        """Count texts with the name of the stream."""
        return Counter((self.name, kind, text) for kind, text in pairs)

    def alerts(self) -> Counter[tuple[Any, ...]]:
        """Count the alerts that the stream must raise: with its reason, if it was blocked."""
        read = self.expected
        refusals = [text for kind, text in read.texts if kind == "refusal"]
        found: Counter[tuple[Any, ...]] = Counter({(self.name, "deltaloom.refusal.opened"): len(refusals)})
        found.update((self.name, "deltaloom.refusal.finished", text) for text in refusals)
        if read.has_fallback:
            found[self.name, "deltaloom.response.fallback"] += 1
        known = reason_class(read.reason or "", provider=self.context["provider"])
        if not refusals and known in REFUSED | STOPPED:
            alert = "deltaloom.response.refused" if known in REFUSED else _ALERTS[read.status]
            found[self.name, alert, read.reason, known, read.category, read.explanation] += 1
        return +found


def published(name: str, body: bytes, *, is_cut: bool) -> Published:
    """Translate a stream that comes in pieces of random sizes."""
    translator = Translator(response_id=name)
    events = [event for piece in pieces_of(body, random.Random(name)) for event in translator.feed(piece)]
    events += translator.end("interrupted" if is_cut else "complete")
    expected = expected_of(translator.dialect, body, is_cut=is_cut)
    return Published(name, events, {"provider": "", **translator.context}, expected, is_cut)


def recorded() -> Iterator[Published]:
    """Yield the recorded streams, or the demo's own, whole and broken off."""
    for name, body in recorded_or_own():
        yield published(name, body, is_cut=False)
        yield published(f"{name} cut", cut_at_random(name, body), is_cut=True)


async def publish(redis: Redis, stream: str, streams: list[Published]) -> None:
    """Publish the events in entries of 1 to 64 events, those of different streams mixed."""
    chance = random.Random("order")
    left = [(each, 0) for each in streams]
    pipeline = redis.pipeline(transaction=False)
    while left:
        place = chance.randrange(len(left))
        each, start = left[place]
        end = start + chance.choice((1, 2, 16, 64))
        events = each.events[start:end]
        fields: dict[Any, Any] = {name: value for name, value in each.context.items() if value}
        pipeline.xadd(stream, {"event": json.dumps(events), **fields})
        if end < len(each.events):
            left[place] = (each, end)
        else:
            left[place] = left[-1]
            del left[-1]
        if len(pipeline) == PIPELINE or not left:
            await pipeline.execute()


def counted(texts: Iterable[AssembledText]) -> Counter[tuple[Any, ...]]:
    """Count texts with the name of the stream; summaries of reasoning count as reasoning."""
    return Counter((text.response_id, text.kind.removesuffix("_summary"), text.text) for text in texts)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_texts_and_alerts_of_recorded_streams(redis: Redis, redis_url: str, prefix: str) -> None:
    """Write each text, complete only if the provider closed it, and alert about blocks with their reasons."""
    streams = list(recorded())
    async with running_workers(redis_url, prefix, handlers=",".join(BUILT_IN)):
        await publish(redis, StreamNames(prefix).deltas, streams)
        await wait_until_settled(redis, prefix, 240)
    written = await texts(redis, prefix)
    assert counted(text for text in written if text.text) == sum(
        (each.texts(each.expected.texts) for each in streams), Counter()
    )
    assert counted(text for text in written if text.text and text.status == "completed") == sum(
        (each.texts(each.expected.closed) for each in streams), Counter()
    )
    withheld = {text.response_id for text in written if text.integrity == "redacted"}
    assert {each.name for each in streams if each.expected.is_redacted and not each.is_cut} == {
        name for name in withheld if not str(name).endswith(" cut")
    }
    raised: Counter[tuple[Any, ...]] = Counter()
    for alert in await alerts(redis, prefix):
        place = (alert.response_id, alert.type)
        if alert.type == "deltaloom.refusal.finished":
            raised[*place, alert.text] += 1
        elif alert.type in {"deltaloom.refusal.opened", "deltaloom.response.fallback"}:
            raised[place] += 1
        else:
            details = (alert.reason, alert.reason_class, alert.provider_category, alert.provider_explanation)
            raised[*place, *details] += 1
    assert raised == sum((each.alerts() for each in streams), Counter())
    assert await dead_letters(redis, prefix) == []
