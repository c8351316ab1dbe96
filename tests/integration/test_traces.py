"""Tests of traces: real workers and relays send them to an HTTP server that parses OTLP's own messages."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from deltaloom import GROUP, StreamNames
from embedded.free_ports import free_port
from service.observability.tracing.conventions import SCHEMA_URL
from service.observability.tracing.otel_spans import MAX_LINKS
from tests import bench
from tests.otlp import otel_environment, spans_at
from tests.probes import Probes
from tests.receivers import hang, receiving, status
from tests.relays import (
    destination,
    raise_alert,
    relay_environment,
    relay_process,
    wait_until_served,
)
from tests.relays import (
    wait_until_settled as wait_until_delivered,
)
from tests.streams import add
from tests.waiting import wait_until
from tests.workers import running_workers, texts, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.otlp import ReceivedSpan
    from tests.receivers import Receiver

CANARIES = {
    "tenant": "canary-tenant",
    "safety_identifier": "canary-person",
    "reference": "canary-reference",
    "upstream_response_id": "canary-upstream",
    "response_id": "canary-response",
}
"""Metadata of which nothing may be in a span."""

_delta = partial(bench.delta, kind="refusal")


def traceparent(number: int, *, sampled: bool = True) -> str:
    """Return the `traceparent` of a producer."""
    return f"00-{number + 1:032x}-{number + 1:016x}-{'01' if sampled else '00'}"


def linked(*numbers: int) -> set[str]:
    """Return the links to producers."""
    return {f"{number + 1:032x}-{number + 1:016x}" for number in numbers}


async def publish(redis: Redis, prefix: str, numbers: Iterable[int], **more: str) -> None:
    """Add a refused response for each producer, in one transaction, so that one batch may have all."""
    pipeline = redis.pipeline(transaction=True)
    for number in numbers:
        response = f"canary-response-{number}"
        for event in (_delta(1, "canary-text"), bench.done("canary-text", kind="refusal")):
            fields = {"event": json.dumps(event), "response_id": response, "traceparent": traceparent(number)}
            pipeline.xadd(StreamNames(prefix).deltas, cast("dict[Any, Any]", fields | more))
    await pipeline.execute()


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set variables for the processes of a test, which has none of OpenTelemetry otherwise."""

    def set_them(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_them


async def wait_for_spans(receiver: Receiver, count: int) -> list[ReceivedSpan]:
    """Wait until a receiver has this many spans, and return them."""
    await wait_until(lambda: len(spans_at(receiver)) >= count, message=f"{count} spans are exported")
    return spans_at(receiver)


async def test_a_batch_is_a_span_with_links(
    redis: Redis, redis_url: str, prefix: str, set_environment: Callable[..., None]
) -> None:
    """Export one span a batch, with the attributes of the conventions, links to producers, and no canary."""
    await publish(redis, prefix, range(3), **{k: v for k, v in CANARIES.items() if k != "response_id"})
    await add(redis, StreamNames(prefix).deltas, {"event": "{canary", "traceparent": traceparent(3)})
    async with receiving() as receiver:
        set_environment(otel_environment(receiver, RESOURCE_ATTRIBUTES="deployment.environment.name=test"))
        async with running_workers(redis_url, prefix, consumer="w1"):
            await wait_until_settled(redis, prefix)
        spans = spans_at(receiver)  # a worker that has stopped has sent all
    (batch,) = spans
    assert batch.span.name == f"process {prefix}:deltas"
    assert batch.span.kind == Span.SPAN_KIND_CONSUMER
    assert batch.span.parent_span_id == b""
    assert batch.linked == linked(0, 1, 2, 3)
    assert batch.schema_url == SCHEMA_URL
    assert batch.scope == "deltaloom"
    host, port = re.findall(r"//(?:.*@)?([^:/]+):(\d+)", redis_url)[0]
    assert batch.attributes == {
        "messaging.system": "redis",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": f"{prefix}:deltas",
        "messaging.consumer.group.name": "deltaloom",
        "messaging.client.id": "w1",
        "messaging.batch.message_count": 7,
        "server.address": host,
        "server.port": int(port),
        "deltaloom.batch.redelivered": False,
        "deltaloom.batch.acknowledged": 7,
        "deltaloom.batch.dead_letters": 1,
    }
    assert batch.resource["service.name"] == "deltaloom-worker"
    assert batch.resource["service.instance.id"] == "w1"
    assert batch.resource["deployment.environment.name"] == "test"
    assert batch.span.status.code == Status.STATUS_CODE_UNSET
    assert all(b"canary" not in request.body for request in receiver.received)


async def test_links_are_limited(
    redis: Redis, redis_url: str, prefix: str, set_environment: Callable[..., None]
) -> None:
    """Link to a limited number of producers, first to those with recorded traces, and count the others."""
    pipeline = redis.pipeline(transaction=True)
    number = MAX_LINKS + 5
    for each in range(number):
        fields = {"event": json.dumps(_delta(1, "x")), "response_id": f"r{each}"}
        fields["traceparent"] = traceparent(each, sampled=each >= 5)
        pipeline.xadd(StreamNames(prefix).deltas, cast("dict[Any, Any]", fields))
    await pipeline.execute()
    async with receiving() as receiver:
        set_environment(otel_environment(receiver))
        async with running_workers(redis_url, prefix):
            await wait_until_settled(redis, prefix)
    (batch,) = spans_at(receiver)
    assert batch.linked == linked(*range(5, number))
    assert batch.attributes["deltaloom.links_left_out"] == 5


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [("always_off", "", 0), ("parentbased_traceidratio", "0", 0), ("traceidratio", "1", 1)],
)
async def test_sampler_of_batches(
    redis: Redis,
    redis_url: str,
    prefix: str,
    set_environment: Callable[..., None],
    sampler: str,
    argument: str,
    expected: int,
) -> None:
    """Let `OTEL_TRACES_SAMPLER` decide which batches are recorded: they have no parent."""
    await publish(redis, prefix, range(1))
    async with receiving() as receiver:
        set_environment(otel_environment(receiver, TRACES_SAMPLER=sampler, TRACES_SAMPLER_ARG=argument))
        async with running_workers(redis_url, prefix):
            await wait_until_settled(redis, prefix)
    assert len(spans_at(receiver)) == expected


async def test_attempts_to_deliver(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    """Export a span for each attempt, in the trace of its alert unless that is not recorded."""
    file = tmp_path / "alerts.toml"
    about = {"text": "canary-text", **CANARIES, "provider": "openai"}
    about.pop("response_id")
    async with receiving() as receiver, receiving(status(503, "canary answer"), status(200)) as team:
        route = '[[routes]]\nto = ["team"]\ntext = "full"\n'
        file.write_text(destination("team", team.url) + route)
        set_environment(otel_environment(receiver))
        async with relay_process(file, relay_environment(redis_url, prefix, consumer="r1")):
            await wait_until_served(redis, prefix, "team")
            for number, sampled in ((0, True), (1, False)):
                await raise_alert(
                    redis,
                    prefix,
                    "opened",
                    f"canary-{number}",
                    traceparent=traceparent(number, sampled=sampled),
                    model="ft:gpt-x:canary-customer::1",
                    **about,
                )
                await wait_until_delivered(redis, prefix, "team")
    first, second = spans_at(receiver)
    assert len(team.received) == 3
    for span, number, outcome in ((first, 1, "retry"), (second, 2, "delivered")):
        assert span.span.name == f"deliver {prefix}:alerts"
        assert span.span.kind == Span.SPAN_KIND_CONSUMER
        assert span.span.trace_id.hex() == f"{1:032x}"
        assert span.span.parent_span_id.hex() == f"{1:016x}"
        assert span.linked == linked(0)
        assert span.schema_url == SCHEMA_URL
        assert span.resource["service.name"] == "deltaloom-relay"
        attributes = span.attributes
        assert attributes.pop("messaging.message.id")
        assert attributes.pop("server.address")
        assert attributes.pop("server.port")
        assert attributes.pop("error.type", "delivered") == outcome
        assert attributes == {
            "messaging.system": "redis",
            "messaging.operation.type": "process",
            "messaging.operation.name": "deliver",
            "messaging.destination.name": f"{prefix}:alerts",
            "messaging.consumer.group.name": "relay:team",
            "messaging.client.id": "r1",
            "deltaloom.delivery.destination": "team",
            "deltaloom.delivery.attempt": number,
            "deltaloom.delivery.outcome": outcome,
            "deltaloom.alert.type": "deltaloom.refusal.opened",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "ft:gpt-x",
        }
    assert first.span.status.code == Status.STATUS_CODE_ERROR
    assert second.span.status.code == Status.STATUS_CODE_UNSET
    assert all(b"canary" not in request.body for request in receiver.received)


async def test_digests_are_linked_to_all_their_alerts(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    """Export the attempt of a digest as a trace of its own, with a link to the trace of each alert."""
    file = tmp_path / "alerts.toml"
    async with receiving() as receiver, receiving() as team:
        group = {"by": ["model"], "window": 1, "from": 2}
        file.write_text(destination("team", team.url, group=group))
        set_environment(otel_environment(receiver))
        for number in range(3):
            response = f"r{number}"
            await raise_alert(redis, prefix, "opened", response, traceparent=traceparent(number))
        async with relay_process(file, relay_environment(redis_url, prefix)):
            await wait_until_served(redis, prefix, "team")
            await wait_until_delivered(redis, prefix, "team")
    spans = [each for each in spans_at(receiver) if "messaging.batch.message_count" in each.attributes]
    (digest,) = spans
    assert digest.attributes["messaging.batch.message_count"] == len(digest.linked) > 1
    assert digest.span.parent_span_id == b""


async def test_redelivered_entries(
    redis: Redis, redis_url: str, prefix: str, set_environment: Callable[..., None]
) -> None:
    """Mark the batch of entries that an earlier process had read."""
    await publish(redis, prefix, range(2))
    await redis.xgroup_create(StreamNames(prefix).deltas, GROUP, id="0")
    await redis.xreadgroup(GROUP, "w1", {StreamNames(prefix).deltas: ">"}, count=2)
    async with receiving() as receiver:
        set_environment(otel_environment(receiver))
        async with running_workers(redis_url, prefix, consumer="w1"):
            await wait_until_settled(redis, prefix)
    batches = {each.attributes["deltaloom.batch.redelivered"]: each for each in spans_at(receiver)}
    assert (batches[True].linked, batches[False].linked) == (linked(0), linked(1))


@pytest.mark.parametrize("away", ["refused", "hangs", "error"])
async def test_a_receiver_that_is_away_delays_nothing(
    redis: Redis,
    redis_url: str,
    prefix: str,
    tmp_path: Path,
    set_environment: Callable[..., None],
    away: str,
) -> None:
    """Write texts, and stop in time, while the receiver refuses, hangs or fails; count the lost spans."""
    probes = Probes.of(tmp_path)
    async with receiving(hang if away == "hangs" else status(503)) as receiver:
        url = f"http://127.0.0.1:{free_port()}" if away == "refused" else receiver.url
        queue = {"BSP_MAX_QUEUE_SIZE": "2", "BSP_MAX_EXPORT_BATCH_SIZE": "1"}
        set_environment(otel_environment(url, **queue))
        async with running_workers(redis_url, prefix, **probes.settings) as (worker,):
            for number in range(6):
                await publish(redis, prefix, [number])
                await wait_until_settled(redis, prefix)

            async def dropped() -> int:
                spans: dict[str, int] = (await probes.json("/statusz"))["traces"]["spans"]
                assert spans["waiting"] <= 2
                return spans["dropped"]

            await wait_until(dropped)
            _, metrics = await probes.got("/metrics")
            spans = dict(re.findall(r'deltaloom_trace_spans_total{outcome="(\w+)"} (\d+)\.0', metrics))
            assert spans.keys() == {"exported", "failed", "dropped"}
            assert (spans["exported"], int(spans["dropped"]) > 0) == ("0", True)
            assert len(await texts(redis, prefix)) == 6
            assert await probes.status("/readyz") == 200
            assert await worker.stop() == 0
            (stopped,) = [line for line in worker.lines() if line["event"] == "traces stopped"]
            assert stopped["exported"] == 0
            assert stopped["lost"] >= 6
            assert worker.has_logged("spans dropped, the queue is full")


async def test_secrets_of_the_receiver_are_not_shown(
    redis: Redis, redis_url: str, prefix: str, tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    """Send the headers, but show neither them nor the login and options of the URL in logs and status."""
    probes = Probes.of(tmp_path)
    file = tmp_path / "headers"
    file.write_text("X-Api-Key=hush%20key,broken hush-header\n")
    async with receiving(status(401, "no")) as receiver:
        url = receiver.url.replace("//", "//user:hush-password@") + "/v1/traces?key=hush-key"
        variables = otel_environment("", EXPORTER_OTLP_TRACES_ENDPOINT=url)
        set_environment(variables | {"OTEL_EXPORTER_OTLP_TRACES_HEADERS_FILE": str(file)})
        async with running_workers(redis_url, prefix, log_level="debug", **probes.settings) as (worker,):
            await publish(redis, prefix, [0])
            await wait_until(partial(worker.has_logged, "traces not exported"))
            _, shown = await probes.got("/statusz")
            assert json.loads(shown)["traces"]["endpoint"] == f"{receiver.url}/v1/traces"
            assert await worker.stop() == 0
            log = worker.log.read_text()
            lines = worker.lines()
            (failure,) = [line for line in lines if line["event"] == "traces not exported"]
    assert receiver.received[0].headers["x-api-key"] == "hush key"
    (ignored,) = [line for line in lines if line["event"] == "variable of traces ignored"]
    assert ignored["error"].endswith("(not shown)")
    assert receiver.received[0].path == "/v1/traces?key=hush-key"
    assert "hush" not in shown
    assert "hush" not in log
    assert "401" in failure["error"]


async def test_a_worker_without_the_extra_works(
    redis: Redis, redis_url: str, prefix: str, set_environment: Callable[..., None]
) -> None:
    """Work without traces if they cannot be sent, and say why."""
    set_environment(otel_environment("http://127.0.0.1:4317", EXPORTER_OTLP_PROTOCOL="grpc"))
    await publish(redis, prefix, [0])
    async with running_workers(redis_url, prefix) as (worker,):
        await wait_until_settled(redis, prefix)
        (off,) = [line for line in worker.lines() if line["event"] == "traces off"]
    assert off["error"].startswith("OTEL_EXPORTER_OTLP_PROTOCOL=grpc is not supported: http/protobuf")
