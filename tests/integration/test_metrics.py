"""Tests of a worker's metrics: their counts are those of the input and of the outputs."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from deltaloom import StreamNames
from deltaloom.streams import GROUP
from service.apps.worker_app import WorkerApp
from service.observability.metrics.catalog import METRICS, OF_GROUPS, OF_WORKERS
from service.observability.metrics.exposition import OPEN_METRICS, exposition
from service.observability.metrics.samples import together
from service.observability.metrics.worker_instruments import WorkerInstruments
from service.settings import Settings
from tests import bench
from tests.streams import add, entries
from tests.waiting import wait_until
from tests.workers import alerts, dead_letters, serving, texts, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from service.observability.metrics.samples import Samples

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PART = {"item_id": "item_1", "output_index": 0, "content_index": 0}


delta = partial(bench.delta, kind="refusal")


def done(text: str, kind: str = "refusal") -> dict[str, Any]:
    """Return the event that closes a text."""
    return {"type": f"response.{kind}.done", "sequence_number": 100, kind: text, **PART}


MIXED: list[dict[str, str]] = [
    {"event": json.dumps(delta(1, "I")), "response_id": "refused", "traceparent": TRACEPARENT},
    {"event": json.dumps([delta(2, " can"), delta(3, "not")]), "response_id": "refused"},
    {"event": json.dumps(done("I cannot")), "response_id": "refused"},
    {"event": json.dumps(done("No.")), "response_id": "without-deltas"},
    {"event": json.dumps({"type": "response.completed", "response": {}}), "response_id": "without-deltas"},
    {"event": json.dumps(delta(1, "open")), "response_id": "open"},
    {"event": json.dumps({"type": "response.in_progress"}), "response_id": "open"},
    {"event": json.dumps({"type": "keepalive"}), "response_id": "open"},
    {"event": json.dumps({"type": "made.up.by.a.stranger"}), "response_id": "open"},
    {"event": json.dumps([{"type": "response.refusal.delta"}, delta(1, "x")]), "response_id": "half"},
    {"event": json.dumps(done("Stopped")), "response_id": "half"},
    {"event": "{"},
    {"nothing": "here"},
    {"event": json.dumps(done("Odd") | {"item_id": 7}), "response_id": "odd"},
    {
        "event": json.dumps({"type": "response.failed", "response": {"error": {"code": "content_filter"}}}),
        "response_id": "filtered",
    },
    {"event": json.dumps({"type": "deltaloom.producer.loss", "scope": "process", "dropped": 7})},
]
"""Entries with texts, alerts, dead letters, events without effect and arrays."""

LATE: list[dict[str, str]] = [
    {"event": json.dumps(delta(9, "late")), "response_id": "refused"},
    {"event": json.dumps(done("Something else")), "response_id": "refused"},
    {"event": json.dumps(delta(2, "more")), "response_id": "open"},
]
"""Entries that come after the texts of the others are finished."""


def number(samples: Samples, name: str) -> float:
    """Return the value of a metric without labels."""
    value = samples[name][()]
    assert isinstance(value, float | int)
    return value


def by_label(samples: Samples, name: str) -> dict[Any, float]:
    """Return the values of a counter that are not zero, by label or labels."""
    values: Mapping[Any, Any] = samples[name]
    return {labels if labels[1:] else labels[0]: value for labels, value in values.items() if value}


def events_in(published: list[dict[str, str]]) -> Counter[str]:
    """Return the number of events that can be read, by type."""
    types: Counter[str] = Counter()
    for fields in published:
        try:
            found = json.loads(fields.get("event", "[]"))
        except ValueError:
            continue
        types.update(each["type"] for each in (found if isinstance(found, list) else [found]))
    return types


async def test_counts_are_those_of_the_outputs(redis: Redis, redis_url: str, prefix: str) -> None:
    """Count every entry, event, text, alert and dead letter once, over two workers and claimed entries."""
    names = StreamNames(prefix)
    for fields in MIXED:
        await add(redis, names.deltas, fields)
    await redis.xgroup_create(names.deltas, GROUP, id="0")
    await redis.xreadgroup(GROUP, "dead", {names.deltas: ">"}, count=4)
    settings = Settings(redis_url=redis_url, prefix=prefix, block_ms=50, claim_time=1, sweep_interval=0.2)
    both = [WorkerInstruments(), WorkerInstruments()]
    workers = [
        WorkerApp(settings.model_copy(update={"consumer": f"w{n}"}), each) for n, each in enumerate(both)
    ]
    async with serving(workers):
        await wait_until_settled(redis, prefix)
        for fields in LATE:
            await add(redis, names.deltas, fields)
        await wait_until_settled(redis, prefix)
        await wait_until(lambda: any("input_lag_entries" in each.samples() for each in both))
        all_samples = [each.samples() for each in both]
        samples = together(all_samples)
    published = [*MIXED, *LATE]
    assert sum("input_lag_entries" in each for each in all_samples) == 1
    assert number(samples, "entries_acknowledged_total") == len(published)
    assert number(samples, "entries_claimed_total") == 4
    assert number(samples, "entries_read_total") == len(published) - 4
    assert number(samples, "entries_lost_total") == 0
    expected = events_in(published)
    expected["(other)"] = expected.pop("made.up.by.a.stranger") + expected.pop("keepalive")
    assert by_label(samples, "events_total") == expected
    written = Counter((text.kind, text.status, text.integrity) for text in await texts(redis, prefix))
    assert written.total() >= 4
    assert by_label(samples, "texts_finished_total") == written
    raised = Counter((alert.type, alert.severity) for alert in await alerts(redis, prefix))
    assert {"deltaloom.refusal.opened", "deltaloom.text.contradicted"} <= {key[0] for key in raised}
    assert by_label(samples, "alerts_raised_total") == raised
    letters = Counter(letter.reason for letter in await dead_letters(redis, prefix))
    assert letters.total() >= 3
    assert by_label(samples, "dead_letters_total") == letters
    assert number(samples, "late_events_total") == 1
    assert number(samples, "producer_lost_events_total") == 7
    assert number(samples, "ignored_fields_total") == 1
    assert number(samples, "redis_up") == 1
    assert len(await entries(redis, names.assembled)) == written.total()
    check_formats(samples, written, raised)


def check_formats(samples: Samples, written: Counter[Any], raised: Counter[Any]) -> None:
    """Parse both formats, and find the same values and a trace in them."""
    plain, media_type = exposition(samples)
    assert media_type.startswith("text/plain")
    families = {family.name: family for family in plain_families(plain.decode())}
    opened, media_type = exposition(samples, OPEN_METRICS)
    assert media_type.startswith("application/openmetrics-text")
    parsed = text_string_to_metric_families(opened.decode())  # type: ignore[no-untyped-call]
    open_families = {family.name: family for family in parsed}
    assert families.keys() == open_families.keys()
    exported = {metric.full_name.removesuffix("_total") for metric in (*OF_WORKERS, *OF_GROUPS)}
    assert families.keys() == exported
    to_text = {s.name: s.value for s in families["deltaloom_input_to_alert_seconds"].samples if not s.labels}
    assert to_text["deltaloom_input_to_alert_seconds_count"] == raised.total()
    counts = families["deltaloom_input_to_text_seconds"].samples
    assert sum(s.value for s in counts if s.name.endswith("_count")) == written.total()
    traced = [
        s.exemplar.labels["trace_id"]
        for s in open_families["deltaloom_input_to_text_seconds"].samples
        if s.exemplar is not None
    ]
    assert traced == [TRACE]


async def test_entries_that_were_acknowledged_before_do_not_count(redis: Redis, prefix: str) -> None:
    """Count only what a commit does itself, if another worker has acknowledged some of its entries."""
    instruments = WorkerInstruments()
    story = bench.Bench(redis, prefix)
    for fields in MIXED:
        await add(redis, story.names.deltas, fields)
    consumer = story.consumer(instruments=instruments)
    read = await consumer.read(100)
    await redis.xack(story.names.deltas, GROUP, *(entry.id for entry in read[:12]))
    await consumer.process_later(read)
    samples = instruments.samples()
    left = MIXED[12:]
    assert number(samples, "entries_acknowledged_total") == len(left)
    assert by_label(samples, "events_total") == events_in(left)
    assert by_label(samples, "dead_letters_total") == {"invalid_event": 1}
    await consumer.process_later(read)
    again = instruments.samples()
    for name in ("entries_acknowledged_total", "events_total", "dead_letters_total", "alerts_raised_total"):
        assert again[name] == samples[name]


def test_names_are_unique() -> None:
    """Give each metric a name, a meaning and a rule how to add it up."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.about.endswith(".")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.bounds)
        assert metric.bounds == tuple(sorted(metric.bounds))
