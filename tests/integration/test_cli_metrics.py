"""Tests of `deltaloom metrics`, and of `/metrics` of a worker and a relay in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deltaloom import GROUP, StreamNames
from service.observability.metrics.catalog import OF_GROUPS, OF_RELAYS, OF_WORKERS
from tests.bench import delta
from tests.relays import destination, raise_alert, relay_environment, relay_process
from tests.service.cli.command import deltaloom, environment
from tests.streams import add
from tests.waiting import wait_until
from tests.workers import running_workers

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.workers import WorkerProcess


NOBODY = "redis://127.0.0.1:1"


def values(text: str) -> dict[str, float]:
    """Return the values of a text in the format of Prometheus, by name and labels."""
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def check_metrics(text: str) -> None:
    """Let Prometheus' own tool find mistakes, if it is installed."""
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


async def test_figures_of_the_deployment(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Print lag, ages, responses, counts and backlogs, or replace a file with them."""
    names = StreamNames(prefix)
    env = environment(redis_url, prefix)
    now = await redis.time()
    began = int(now[0]) * 1000 - 60_000
    for number, age in enumerate((0, 20_000, 40_000, 59_000)):
        event = json.dumps(delta(number, "x"))
        await redis.xadd(names.deltas, {"event": event, "response_id": "r"}, id=f"{began + age}-1")
    await redis.xgroup_create(names.deltas, GROUP, id="0")
    await redis.xreadgroup(GROUP, "stuck", {names.deltas: ">"}, count=2)
    await redis.xack(names.deltas, GROUP, f"{began}-1")
    await redis.zadd(names.name("open"), {"response:a": 1, "response:b": 2})
    await redis.zadd(names.name("waiting"), {"response:a": 1})
    counts: dict[Any, Any] = {
        "late": 3,
        "type:keepalive": 4,
        "type:other": 1,
        "left_out:x:y": 2,
        "truncated:model": 5,
    }
    await redis.hset(names.name("counts"), mapping=counts)
    await redis.xgroup_create(names.alerts, "relay:here", id="0", mkstream=True)
    await redis.xgroup_create(names.alerts, "not-a-relay", id="0")
    await raise_alert(redis, prefix, "opened", "one")
    await raise_alert(redis, prefix, "opened", "two")
    await redis.xreadgroup("relay:here", "relay", {names.alerts: ">"}, count=1)
    done = deltaloom("metrics", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    check_metrics(done.stdout)
    found = values(done.stdout)
    assert found["deltaloom_redis_up"] == 1
    assert found["deltaloom_input_lag_entries"] == 2
    assert found["deltaloom_pending_entries"] == 1
    for name in ("input_oldest", "oldest_pending", "low_water_age"):
        assert 40 <= found[f"deltaloom_{name}_seconds"] < 100
    assert found["deltaloom_open_responses"] == 2
    assert found["deltaloom_waiting_responses"] == 1
    assert 0 < found["deltaloom_redis_memory_used_ratio"] < 1
    stored = {name.split()[1]: n for name, n in found.items() if name.startswith("deltaloom_stored_") and n}
    assert stored == {"late": 3, "without_effect": 5, "ignored_fields": 2, "truncated_values": 5}
    assert found["deltaloom_relay_backlog here"] == 2
    assert "deltaloom_relay_backlog not-a-relay" not in found
    assert 0 <= found["deltaloom_relay_oldest_seconds here"] < 60

    await redis.hset(names.name("owners"), f"{began + 20_000}-1", "response:large")
    await redis.expire(names.name("owners"), 60)
    await redis.xdel(names.deltas, f"{began + 40_000}-1")  # so that the server does not know the lag
    file = tmp_path / "deltaloom.prom"
    done = deltaloom("metrics", "--output", str(file), env=env)
    assert (done.returncode, done.stdout) == (0, "")
    again = values(await asyncio.to_thread(file.read_text, "utf-8"))
    assert again["deltaloom_low_water_age_seconds"] < 40 <= again["deltaloom_oldest_pending_seconds"]
    assert again["deltaloom_input_lag_entries"] >= 1
    assert await asyncio.to_thread(os.listdir, tmp_path) == [file.name]


async def test_an_empty_deployment(redis_url: str, prefix: str) -> None:
    """Show zeros before anything was published."""
    found = values(deltaloom("metrics", env=environment(redis_url, prefix)).stdout)
    assert found["deltaloom_input_lag_entries"] == found["deltaloom_input_oldest_seconds"] == 0


def test_without_redis(tmp_path: Path) -> None:
    """Say that Redis is away, in the file too, so that old figures do not look like new ones."""
    file = tmp_path / "deltaloom.prom"
    file.write_text("deltaloom_input_lag_entries 0\n")
    done = deltaloom("metrics", "--output", str(file), env=environment(NOBODY, "nobody"))
    assert done.returncode == 1
    assert "no server answers" in done.stderr
    found = values(file.read_text("utf-8"))
    assert found["deltaloom_redis_up"] == 0
    assert "deltaloom_input_lag_entries" not in found
    done = deltaloom("metrics", "--output", str(tmp_path), env=environment(NOBODY, "nobody"))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


async def port_of(process: WorkerProcess) -> int:
    """Return the port at which a process serves HTTP."""
    await wait_until(partial(process.has_logged, "http started"), 60, message="the server starts")
    (port,) = [line["port"] for line in process.lines() if line["event"] == "http started"]
    return int(port)


async def scraped(process: WorkerProcess, accept: str = "") -> tuple[str, str]:
    """Return the metrics of a process, and their media type."""
    url = f"http://127.0.0.1:{await port_of(process)}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Accept": accept}) as answer:
        assert answer.status == 200
        return await answer.text(), answer.headers["Content-Type"]


@pytest.mark.parametrize("open_metrics", [False, True])
async def test_a_worker_serves_its_metrics(
    redis: Redis, redis_url: str, prefix: str, *, open_metrics: bool
) -> None:
    """Serve all metrics of a worker and of its group, in the format that the request accepts."""
    accept = "application/openmetrics-text; version=1.0.0" if open_metrics else "text/plain"
    async with running_workers(redis_url, prefix, http="127.0.0.1:0") as (worker,):
        await redis.xadd(StreamNames(prefix).deltas, {"event": json.dumps(delta(1, "x")), "response_id": "r"})

        async def read() -> str:
            text, media_type = await scraped(worker, accept)
            assert media_type.startswith(accept.partition(";")[0])
            found = re.search(r"^deltaloom_events_total\S+ 1\.0", text, re.MULTILINE)
            return text if found and "deltaloom_input_lag" in text else ""

        text = await wait_until(read, message="the event is counted")
    expected = {metric.full_name for metric in (*OF_WORKERS, *OF_GROUPS)}
    named = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    if open_metrics:
        assert text.endswith("# EOF\n")
        assert named == {name.removesuffix("_total") for name in expected}
    else:
        assert named == expected
        check_metrics(text)


async def test_a_relay_serves_its_metrics(redis: Redis, redis_url: str, prefix: str, tmp_path: Path) -> None:
    """Serve the backlog of a destination to which the relay sends."""
    file = tmp_path / "alerts.toml"
    file.write_text(destination("here", "http://127.0.0.1:1"))
    await raise_alert(redis, prefix, "opened", "waits")
    async with relay_process(file, relay_environment(redis_url, prefix, http="127.0.0.1:0")) as relay:

        async def read() -> str:
            text, _ = await scraped(relay)
            complete = all(metric.full_name in text for metric in OF_RELAYS) and "backlog{" in text
            return text if complete else ""

        text = await wait_until(read, message="the backlog is measured")
    check_metrics(text)
    assert values(text)["deltaloom_relay_backlog here"] == 1


async def test_no_two_workers_export_the_group(redis_url: str, prefix: str) -> None:
    """Export the figures of the group once, and go on when the leader has left."""
    async with running_workers(redis_url, prefix, 3, http="127.0.0.1:0") as workers:

        async def leaders() -> list[WorkerProcess]:
            texts = await asyncio.gather(
                *(scraped(each) for each in workers if each.process.returncode is None)
            )
            running = [each for each in workers if each.process.returncode is None]
            return [each for each, (text, _) in zip(running, texts, strict=True) if "input_lag" in text]

        (first,) = await wait_until(leaders, message="somebody measures")
        await first.stop()
        (second,) = await wait_until(leaders, 30, message="another one measures")
        assert second is not first


async def test_the_parent_serves_the_metrics_of_all(redis: Redis, redis_url: str, prefix: str) -> None:
    """Add up the counts of several processes, and export the figures of the group once."""
    for number in range(20):
        event = {"event": json.dumps(delta(number, "x")), "response_id": f"r{number}"}
        await add(redis, StreamNames(prefix).deltas, event)
    async with running_workers(redis_url, prefix, processes=2, http="127.0.0.1:0") as (parent,):

        async def read() -> str:
            text, _ = await scraped(parent)
            found = values(text)
            complete = found.get("deltaloom_entries_acknowledged_total") == 20
            return text if complete and "deltaloom_input_lag_entries" in found else ""

        text = await wait_until(read, 60, message="all entries are counted")
    check_metrics(text)
    found = values(text)
    assert found["deltaloom_redis_up"] == 1
    assert sum(n for name, n in found.items() if name.startswith("deltaloom_events_total ")) == 20
