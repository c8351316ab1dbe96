"""Test that a worker makes the right texts and alerts of translated streams."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from deltaloom.dialects import Translator
from deltaloom.reasons import reason_class
from tests.bench import Bench
from tests.client.dialects.streams import HTTP_ERRORS, SAMPLES, body_of
from tests.workers import alerts, texts

if TYPE_CHECKING:
    from redis.asyncio import Redis

ALERT_OF_CLASS = {
    ("incomplete", "refusal"): "deltaloom.response.refused",
    ("incomplete", "safety"): "deltaloom.response.filtered",
    ("incomplete", "policy"): "deltaloom.response.filtered",
    ("incomplete", "guardrail"): "deltaloom.response.filtered",
}


COPIES = {"responses error": [("refusal", "No")]}
"""Texts that only a full copy in the stream has, by the sample's name."""


@pytest.fixture
def bench(redis: Redis, prefix: str) -> Bench:
    """Return a test bench on a prefix of its own."""
    return Bench(redis, prefix)


async def publish(bench: Bench, translator: Translator, body: bytes) -> None:
    """Publish the events of a body as a producer does."""
    events = translator.feed(body) + translator.end()
    await bench.publish(*events, **translator.context)


async def test_each_dialect_gives_its_texts_and_alerts(bench: Bench) -> None:
    """Write each text, and raise an alert for each blocked response."""
    expected_texts, expected_alerts = [], []
    for name, sample in SAMPLES.items():
        await publish(bench, Translator(sample.dialect, response_id=name), body_of(sample))
        expected_texts += [(name, kind, text) for kind, text in sample.texts]
        expected_texts += [(name, kind, text) for kind, text in COPIES.get(name, ())]
        if alert := ALERT_OF_CLASS.get(
            (sample.status, sample.reason_class or reason_class(sample.reason or ""))
        ):
            expected_alerts.append((name, alert, sample.reason, sample.category, sample.explanation))
    await bench.consumer().work()
    found = await texts(bench.redis, bench.prefix)
    assert sorted((each.response_id, each.kind, each.text) for each in found if each.text) == sorted(
        expected_texts
    )
    assert {(text.dialect, text.provider) for text in found if text.response_id == "anthropic"} == {
        ("anthropic.messages", "anthropic")
    }
    raised = [
        (each.response_id, each.type, each.reason, each.provider_category, each.provider_explanation)
        for each in await alerts(bench.redis, bench.prefix)
        if each.type.startswith("deltaloom.response.")
    ]
    assert sorted(raised, key=str) == sorted(expected_alerts, key=str)


async def test_a_block_before_the_stream_raises_an_alert(bench: Bench) -> None:
    """Raise an alert for an HTTP error that a policy caused, and none for other errors."""
    for name, (dialect, status, body, _, _) in HTTP_ERRORS.items():
        translator = Translator(dialect, status=status, response_id=name)
        await publish(bench, translator, json.dumps(body).encode())
    await bench.consumer().work()
    raised = {each.response_id: each.reason for each in await alerts(bench.redis, bench.prefix)}
    assert raised == {
        name: reason
        for name, (*_, reason, reason_class) in HTTP_ERRORS.items()
        if reason_class not in {None, "error"}
    }
