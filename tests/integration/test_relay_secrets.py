"""Logs of a worker and a relay at the default level contain neither words of a refusal nor secrets.

Each kind of destination fails, and the receiver repeats the request in its answer, so that each message that
could contain them is logged.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from deltaloom import StreamNames
from tests.nodes import Node
from tests.receivers import echo, receiving
from tests.relays import destination, hang_up, relay_environment, relay_process, undelivered
from tests.streams import add
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.receivers import Receiver
    from tests.workers import WorkerProcess

MARKER = "Zwetschgenkuchenrezept"
"""A word of the refusal that occurs nowhere else."""
WHSEC = "whsec_c2VjcmV0LW9mLXRoZS13ZWJob29rLXRlc3Q="
SECRETS = {
    "HOOK_SECRET": WHSEC,
    "SLACK_PATH": "T000-slack-path-9f31",
    "ROUTING_KEY": "pagerduty-key-51c2",
    "AUTHORIZATION": "Bearer alertmanager-token-77aa",
    "APPRISE_PASSWORD": "apprise-password-c4d5",
    "PROGRAM_TOKEN": "program-token-e0b8",
    "REDIS_PASSWORD": "redis-password-12ef",
}
ROUTE = """
[[routes]]
to = ["hook", "slack", "pager", "monitoring", "mail", "program", "log"]
text = "full"
"""
PROGRAM = "import os, sys; sys.stderr.write(os.environ['PROGRAM_TOKEN'] + sys.stdin.read()); sys.exit(65)"


def configuration(receiver: Receiver) -> str:
    """Return an alerts file with one destination of each kind, each with secrets."""
    here = f"http://127.0.0.1:{receiver.port}"
    allowed = {"allow_addresses": ["127.0.0.0/8"], "begin": "all"}
    tables: dict[str, dict[str, object]] = {
        "slack": {"type": "slack", "url_env": "SLACK_URL", **allowed},
        "pager": {"type": "pagerduty", "url": f"{here}/pager", "routing_key_env": "ROUTING_KEY", **allowed},
        "monitoring": {
            "type": "alertmanager",
            "url": here,
            "authorization_env": "AUTHORIZATION",
            **allowed,
        },
        "mail": {"type": "apprise", "url_env": "APPRISE_URL", **allowed},
        "program": {
            "type": "command",
            "command": [sys.executable, "-c", PROGRAM],
            "environment": ["PROGRAM_TOKEN"],
            "begin": "all",
        },
        "log": {"type": "log", "begin": "all"},
    }
    hook = destination("hook", f"{here}/hook", secret_env="HOOK_SECRET")  # noqa: S106 - the name of a variable
    written = (
        f"[destinations.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )
    return "\n".join((hook, *written, ROUTE))


async def refuse(redis: Redis, response: str = "resp_1") -> None:
    """Publish a refusal that contains the marker, an invalid event and an entry that is not JSON."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    words = f"I will not tell you of the {MARKER}."
    for event in (
        {"type": "response.refusal.delta", "delta": words, "sequence_number": 1, **place},
        {"type": "response.refusal.done", "refusal": words, "sequence_number": 2, **place},
        {"type": "response.refusal.delta", "delta": [words], "sequence_number": MARKER},
    ):
        fields = {"event": json.dumps(event), "response_id": response, "model": "gpt-x"}
        await add(redis, StreamNames().deltas, fields)
    await add(redis, StreamNames().deltas, {"event": "{" + MARKER})


def _lines(worker: WorkerProcess, event: str) -> list[dict[str, Any]]:
    return [line for line in worker.lines() if str(line["event"]).startswith(event)]


def _given_up(worker: WorkerProcess) -> int:
    return len(_lines(worker, "alert undelivered"))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Node]:
    """Run a server with the user `loom`, who needs a password."""
    node = Node(tmp_path / "server", {"save": ""})
    await node.start()
    try:
        await node.ask("ACL", "SETUSER", "loom", "on", f">{SECRETS['REDIS_PASSWORD']}", "~*", "&*", "+@all")
        yield node
    finally:
        await node.kill()


async def test_logs_contain_no_text_and_no_secret(tmp_path: Path, server: Node) -> None:
    """Logs and stored answers never contain texts or secrets, also after errors and reloads."""
    url = f"redis://loom:{SECRETS['REDIS_PASSWORD']}@{server.address}"
    file = tmp_path / "alerts.toml"
    async with receiving(echo) as receiver, Redis.from_url(server.url) as redis:
        here = f"127.0.0.1:{receiver.port}"
        environment = relay_environment(url, "deltaloom") | {
            **SECRETS,
            "SLACK_URL": f"http://{here}/services/{SECRETS['SLACK_PATH']}",
            "APPRISE_URL": f"json://user:{SECRETS['APPRISE_PASSWORD']}@{here}/mail",
        }
        file.write_text(configuration(receiver))
        async with relay_process(file, environment, "worker", "--with-relay") as worker:
            await wait_until(lambda: worker.has_logged("worker started"))
            await refuse(redis)
            await wait_until(lambda: _given_up(worker) >= 12, 30, message="all six destinations refuse")
            await wait_until(lambda: len(_lines(worker, "A model refuse")) == 2)
            file.write_text(f'[destinations.hook]\ntype = "webhook"\nsecret = "{WHSEC}"\n{MARKER}')
            hang_up(worker)
            await wait_until(lambda: worker.has_logged("alerts file invalid, previous one kept"))
            file.write_text(configuration(receiver).replace("HOOK_SECRET", "PROGRAM_TOKEN"))
            hang_up(worker)
            await wait_until(lambda: len(_lines(worker, "alerts file invalid, previous one kept")) == 2)
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
            await refuse(redis, "resp_2")
            await wait_until(lambda: _given_up(worker) >= 24, 30, message="they go on")
            assert await worker.stop() == 0
            log = worker.log.read_text()
        answers = [alert.answer for alert in await undelivered(redis, "deltaloom")]
    assert receiver.received
    assert all(MARKER in request.body.decode() for request in receiver.received)
    for secret in (MARKER, *SECRETS.values()):
        assert secret not in log
        assert not [answer for answer in answers if secret in answer]
