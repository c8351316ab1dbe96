"""Tests of the sub-commands on a real cluster and on a real sentinel group."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cluster_servers import PATIENT_MS, running_cluster
from tests.sentinel_servers import SERVICE, running_sentinels
from tests.service.cli.command import deltaloom, environment
from tests.waiting import wait_until
from tests.workers import running_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

IDS = [f"resp_{number}" for number in range(8)]

pytestmark = pytest.mark.timeout(240)


@asynccontextmanager
async def environment_of(mode: str, folder: Path) -> AsyncIterator[dict[str, str]]:
    """Run a server group of this mode, and yield the variables that address it."""
    if mode == "cluster":
        async with running_cluster(folder, replicas=1, node_timeout_ms=PATIENT_MS) as cluster:
            yield {"REDIS_URL": f"redis+cluster://{cluster.addresses}", "DELTALOOM_PARTITIONS": "4"}
    else:
        async with running_sentinels(folder) as group:
            url = f"redis://{group.addresses}/{SERVICE}"
            yield {"REDIS_URL": url, "DELTALOOM_REDIS_MODE": "sentinel"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cluster", "sentinel"])
async def test_every_command(tmp_path: Path, mode: str) -> None:
    """Commands work on a cluster and on a sentinel group as on one server."""
    part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    file = tmp_path / "stream.jsonl"
    file.write_text(
        "\n".join(
            json.dumps(event)
            for each in IDS
            for event in (
                {"type": "response.created", "response": {"id": each}},
                {"type": "response.refusal.done", "refusal": f"No, {each}.", **part},
            )
        )
        + "\n{"
    )
    async with environment_of(mode, tmp_path / "servers") as variables:
        env = environment(**variables)
        settings = {name.removeprefix("DELTALOOM_").lower(): value for name, value in variables.items()}
        url = settings.pop("redis_url")
        before = deltaloom("check", "--json", env=env)
        assert "no worker has read" in before.stdout
        async with running_workers(url, "deltaloom", 1, **settings):
            done = deltaloom("publish", str(file), env=env)
            assert (done.returncode, done.stdout.split(" to ")[0]) == (0, "published 17 events in 17 entries")
            tail = deltaloom("tail", "assembled", "--from-start", "--count", "8", "--json", env=env)
            assert sorted(json.loads(line)["text"] for line in tail.stdout.splitlines()) == [
                f"No, {each}." for each in IDS
            ]
            shown = json.loads(deltaloom("show", "resp_5", "--json", env=env).stdout)
            assert [text["text"] for text in shown["texts"]] == ["No, resp_5."]

            def listed() -> list[str]:
                return deltaloom("dead-letters", "list", "--json", env=env).stdout.splitlines()

            await wait_until(listed, 30, message="there is a dead letter")
            (letter,) = map(json.loads, listed())
            assert deltaloom("dead-letters", "drop", letter["id"], env=env).stdout == "1 removed\n"
            checked = deltaloom("check", "--json", env=env)
        found = {each["what"]: each for each in json.loads(checked.stdout)["checks"]}
        assert checked.returncode == 0
        assert found["workers"]["state"] == "ok"
        assert "Valkey" in found["server"]["says"]
        if mode == "cluster":
            assert found["server"]["says"].endswith("(3 of 3 masters)")
            assert found["failover"]["state"] == "ok"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "redis+cluster://:s3cret@127.0.0.1:1",
            "no node of the cluster at redis+cluster://127.0.0.1:1 answers",
        ),
        ("redis+sentinel://:s3cret@127.0.0.1:1/x", "no server answers at redis+sentinel://127.0.0.1:1/x ("),
    ],
)
def test_nobody_there(url: str, says: str) -> None:
    """An address without a server ends in one line, without a traceback and without the password."""
    for command in (("tail", "alerts"), ("show", "x"), ("dead-letters", "list")):
        done = deltaloom(*command, env=environment(url, DELTALOOM_PARTITIONS="2"))
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert done.stderr.startswith(says)
        assert "s3cret" not in done.stderr


def test_one_server_is_no_cluster(redis_url: str) -> None:
    """A single server at a cluster URL is named as the mistake, instead of an unreachable cluster."""
    url = redis_url.replace("redis://", "redis+cluster://")
    done = deltaloom("tail", "alerts", env=environment(url, DELTALOOM_PARTITIONS="2"))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("there is no cluster at redis+cluster://")


def test_a_cluster_without_partitions_is_refused() -> None:
    """A worker on a cluster without partitions refuses to start, rather than to fail at its first batch."""
    done = deltaloom("worker", env=environment("redis+cluster://127.0.0.1:1"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("DELTALOOM_PARTITIONS=0 is not allowed: in a cluster")
