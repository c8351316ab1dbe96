"""The rights in Redis that the page on operations gives a relay: all that it needs, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from deltaloom import StreamNames
from tests.docs.pages import OPERATIONS
from tests.nodes import Node
from tests.relays import (
    destination,
    raise_alert,
    relay_environment,
    relay_process,
    undelivered,
    wait_until_settled,
)
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PASSWORD = "relays-only"  # noqa: S105 - of a server that lives as long as this test


def rights() -> list[str]:
    """As the page has them: the user's name, and its rules."""
    (block,) = [block for block in OPERATIONS.blocks if block.text.startswith("ACL SETUSER relay")]
    _acl, _setuser, *rules = block.text.replace("PASSWORD", PASSWORD).split()
    return rules


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Node]:
    """A server of this test's own."""
    node = Node(tmp_path / "server", {"save": ""})
    await node.start()
    try:
        yield node
    finally:
        await node.kill()


async def lead_a_whole_life(server: Node, folder: Path) -> list[Any]:
    """Deliver by itself and as digests, give up, note who is gone; returns what was denied."""
    async with Redis.from_url(server.url) as owner, receiving() as receiver:
        file = folder / "alerts.toml"
        grouped = {"by": ["model"], "window": 1, "from": 2}
        file.write_text(destination("here", receiver.url, group=grouped))
        environment = relay_environment(f"redis://relay:{PASSWORD}@{server.address}", "deltaloom")
        for number in range(5):  # before anybody reads, so that four fall into one window
            await raise_alert(owner, "deltaloom", "opened", f"resp_{number}")
        async with relay_process(file, environment):
            await wait_until_settled(owner, "deltaloom", "here")
            assert len(receiver.taken) == 2
            for status, name in ((400, "refused"), (410, "gone")):
                receiver.answer = lambda _id, _count, status=status: web.Response(status=status)  # type: ignore[misc]
                await raise_alert(owner, "deltaloom", "opened", name, model=name)
                await wait_until_settled(owner, "deltaloom", "here")
            assert [each.reason for each in await undelivered(owner, "deltaloom")] == ["refused", "gone"]
            await wait_until(lambda: owner.hlen(StreamNames().name("gone")), message="it is noted")
        return list(await server.ask("ACL", "LOG"))


async def test_they_are_enough(tmp_path: Path, server: Node) -> None:
    """Whoever gives a relay no more than it needs would find out what is missing in the night."""
    await server.ask("ACL", "SETUSER", *rights())
    assert await lead_a_whole_life(server, tmp_path) == []
    commands = {rule[1:] for rule in rights() if rule.startswith("+")}
    stats = await server.ask("INFO", "commandstats")
    used = {name.removeprefix("cmdstat_") for name, stat in stats.items() if stat["calls"]}
    assert commands <= used, "and no more than is needed"


async def test_others_keys_are_not_its_own(server: Node) -> None:
    """Who gets hold of a relay's password must not read what people wrote, or have alerts trimmed."""
    await server.ask("ACL", "SETUSER", *rights())
    for command in (
        ("XRANGE", "deltaloom:deltas", "-", "+"),
        ("XRANGE", "deltaloom:assembled", "-", "+"),
        ("XADD", "deltaloom:deltas", "*", "event", "{}"),
        ("XTRIM", "deltaloom:alerts", "MAXLEN", "0"),
        ("XGROUP", "DESTROY", "deltaloom:alerts", "relay:here"),
        ("CONFIG", "GET", "*"),
        ("FLUSHALL",),
    ):
        assert "permission" in await server.ask("ACL", "DRYRUN", "relay", *command), command
