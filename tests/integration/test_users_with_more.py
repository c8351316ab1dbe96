"""Additional rights of the users in `deploy/users.acl`: on a cluster, for confirmed writes, with a relay."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from tests.cluster_servers import PATIENT_MS, running_cluster
from tests.docs.pages import ROOT
from tests.nodes import Node, running
from tests.relays import SECRETS, destination, relay_environment, relay_process
from tests.relays import wait_until_settled as wait_until_delivered
from tests.server import need_waitaof
from tests.service.cli.command import deltaloom, environment
from tests.users import DOES_WITHOUT, OWNER, USERS, NodeWithUsers, password, rules_of
from tests.waiting import wait_until
from tests.webhook_receiver import receiving
from tests.workers import beginning_workers, running_workers, texts, wait_until_settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cluster_servers import Cluster

PARTITIONS = 6
REFUSAL = {"type": "response.refusal.done", "output_index": 0, "content_index": 0, "refusal": "No."}
PAGE = (ROOT / "docs/operations.md").read_text("utf-8")


def on_a_cluster() -> list[str]:
    """Return the rights that docs/operations.md adds on a cluster."""
    (rights,) = re.findall(r"On a cluster, add `([^`]+)` to each user", PAGE)
    return str(rights).split()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Run a cluster with the users and the additional rights on each node."""
    async with running_cluster(tmp_path / "cluster", node_timeout_ms=PATIENT_MS) as cluster:
        for node in cluster.nodes:
            for user in USERS:
                await node.ask("ACL", "SETUSER", user, *rules_of(user), *on_a_cluster())
        yield cluster


def url_of(cluster: Cluster, user: str) -> str:
    """Return the cluster's address with a user's name and password."""
    return f"redis+cluster://{user}:{password(user)}@{cluster.addresses}"


async def refused(*nodes: Node) -> set[tuple[str, str]]:
    """Return the refusals of the servers: user, and command or key."""
    logs = [await node.ask("ACL", "LOG") for node in nodes]
    return {(each["username"], each["object"]) for log in logs for each in log}


@pytest.mark.timeout(120)
async def test_a_cluster_needs_what_the_page_adds(cluster: Cluster, tmp_path: Path) -> None:
    """The documented additional rights are needed and sufficient for all roles on a cluster."""
    count = str(PARTITIONS)

    def command(user: str, *arguments: str, stdin: str = "") -> str:
        env = environment(url_of(cluster, user), DELTALOOM_PARTITIONS=count, **SECRETS)
        done = deltaloom(*arguments, env=env, stdin=stdin.encode(), cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    responses = [f"resp_{number}" for number in range(2 * PARTITIONS)]
    for response in responses:
        await asyncio.to_thread(
            command, "producer", "publish", "-", "--response-id", response, stdin=json.dumps(REFUSAL)
        )
    async with running_workers(url_of(cluster, "worker"), "deltaloom", partitions=count):
        file = tmp_path / "alerts.toml"
        async with receiving() as receiver:
            file.write_text(destination("here", receiver.url))
            env = relay_environment(url_of(cluster, "relay"), "deltaloom", partitions=count)
            async with relay_process(file, env):
                await wait_until(
                    lambda: len(set(receiver.taken)) == 2 * len(responses),
                    60,
                    message="two alerts of each response are delivered",
                )
    for response in responses:
        assert "No." in await asyncio.to_thread(command, "operator", "show", response)
    assert "FAIL" not in await asyncio.to_thread(command, "operator", "check", "--read-only")
    assert "FAIL" not in await asyncio.to_thread(command, "worker", "check")
    assert await refused(*cluster.nodes) == DOES_WITHOUT


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NodeWithUsers]:
    """Run a server with the users for one test alone."""
    node = NodeWithUsers(tmp_path / "server", "embedded")
    async with running([node]):
        yield node


async def test_a_worker_with_a_relay_needs_the_workers_rights_only(
    server: NodeWithUsers, tmp_path: Path
) -> None:
    """`worker --with-relay` needs only the worker's rights, which cover the prefix."""
    async with receiving() as receiver, Redis.from_url(server.url_of(OWNER)) as owner:
        file = tmp_path / "alerts.toml"
        file.write_text(destination("here", receiver.url, group={"by": ["model"], "window": 1, "from": 2}))
        for number in range(5):
            fields: dict[Any, Any] = {"event": json.dumps(REFUSAL), "response_id": f"resp_{number}"}
            await owner.xadd("deltaloom:deltas", fields)
        env = relay_environment(server.url_of("worker"), "deltaloom")
        async with relay_process(file, env, "worker", "--with-relay"):
            await wait_until(lambda: owner.exists("deltaloom:assembled"), 30, message="a text is written")
            await wait_until_settled(owner, "deltaloom")
            await wait_until_delivered(owner, "deltaloom", "here")
        assert receiver.taken
    assert await server.refused() <= {("worker", "config|get")}


@pytest.mark.parametrize(
    ("setting", "right"), [({"wait_aof": "true"}, "waitaof"), ({"wait_replicas": 1}, "wait")]
)
async def test_waiting_for_copies_needs_a_right(tmp_path: Path, setting: dict[str, Any], right: str) -> None:
    """A worker without the right to wait reports it and reads nothing, until the right is granted."""
    assert f"needs `+{right}`" in PAGE
    if right == "waitaof":
        need_waitaof()
    server = NodeWithUsers(tmp_path / "server", "embedded", appendonly="yes")
    replica = Node(
        tmp_path / "replica",
        {"save": "", "replicaof": f"127.0.0.1 {server.port}", "masterauth": password(OWNER)},
    )
    async with running([server, replica]), Redis.from_url(server.url_of(OWNER)) as owner:
        fields: dict[Any, Any] = {"event": json.dumps(REFUSAL), "response_id": "resp_1"}
        await owner.xadd("deltaloom:deltas", fields)
        async with beginning_workers(server.url_of("worker"), "deltaloom", **setting) as (worker,):
            await wait_until(
                lambda: has_logged_error(worker.lines(), "NOPERM", right), 30, message="the worker reports it"
            )
            assert not await owner.exists("deltaloom:assembled")
            await owner.execute_command("ACL", "SETUSER", "worker", f"+{right}")  # type: ignore[no-untyped-call]
            await wait_until(lambda: owner.exists("deltaloom:assembled"), 30, message="it goes on")
            await wait_until_settled(owner, "deltaloom")
        assert [text.text for text in await texts(owner, "deltaloom")] == ["No."]


def has_logged_error(lines: list[dict[str, Any]], *words: str) -> bool:
    """Return whether an error in the log contains all these words."""
    return any(line["level"] == "error" and all(word in str(line) for word in words) for line in lines)


async def test_the_check_as_another_user_names_it(server: NodeWithUsers) -> None:
    """Name user, commands and key, so that nobody takes an operator's lack of rights for the workers'."""
    env = environment(server.url_of("operator"), "deltaloom")
    done = await asyncio.to_thread(deltaloom, "check", "--json", env=env)
    (says,) = [each["says"] for each in json.loads(done.stdout)["checks"] if each["what"] == "scripts"]
    assert done.returncode == 1
    assert re.search(
        r"operator may not run \d\d of the \d\d commands on keys such as deltaloom:scratch:", says
    )
    assert says.endswith("This is the user operator: use --read-only if workers have another one")
